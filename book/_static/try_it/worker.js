// Enlarges one image: reads the file, runs the networks tile by tile, writes PNG.
//
// In:  {file, model, tile, seed}
// Out: {stage} or {done, of} while it works; at last {result, bicubic, height, width, dice},
//      dice: whether another seed gives another image; or {error}

import { encode } from "../fast-png/fast-png.mjs";
import * as ort from "../onnxruntime/ort.wasm.bundle.min.mjs";
import { noiseAt } from "./noise.js";
import { FileError, read, roundEven } from "./read.js";

const here = (name) => new URL(name, import.meta.url);
const sessions = {}; // by model: promises

async function fetched(url) {
  const response = await fetch(url).catch(() => null);
  if (!response?.ok) throw new FileError(`Could not load ${url.pathname.split("/").pop()}.`);
  return response;
}

/** The runtime, unpacked here: most servers would send it as it is, four times larger. */
async function loadRuntime() {
  const response = await fetched(here("../onnxruntime/ort-wasm-simd-threaded.wasm.gz"));
  const unpacked = response.body.pipeThrough(new DecompressionStream("gzip"));
  ort.env.wasm.wasmBinary = await new Response(unpacked).arrayBuffer();
  ort.env.wasm.numThreads = 1; // more need headers that a plain web server doesn't send
}

let runtime;

function session(name) {
  runtime ??= loadRuntime();
  sessions[name] ??= runtime.then(async () => {
    const model = await (await fetched(here(`models/${name}.onnx`))).arrayBuffer();
    return ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  });
  return sessions[name];
}

/** The tiles of an image and what is read around them, as in srgan_lib.tiling. */
export function tiles(height, width, side, radius) {
  if (Math.max(height, width) <= side + 2 * radius) side = Math.max(height, width);
  const list = [];
  for (let top = 0; top < height; top += side) {
    for (let left = 0; left < width; left += side) {
      const [bottom, right] = [Math.min(top + side, height), Math.min(left + side, width)];
      const [y0, x0] = [Math.max(top - radius, 0), Math.max(left - radius, 0)];
      const [y1, x1] = [Math.min(bottom + radius, height), Math.min(right + radius, width)];
      list.push({ top, left, bottom, right, y0, x0, y1, x1 });
    }
  }
  return list;
}

/** Copy a tile with its surroundings out of channel c, as floats in [0, 1]. */
function cut(image, c, { y0, x0, y1, x1 }) {
  const { height, width, values } = image;
  const top = 2 ** image.bits - 1;
  const part = new Float32Array((y1 - y0) * (x1 - x0));
  let i = 0;
  for (let y = y0; y < y1; y++) {
    for (let x = x0; x < x1; x++) part[i++] = values[(c * height + y) * width + x] / top;
  }
  return new ort.Tensor("float32", part, [1, 1, y1 - y0, x1 - x0]);
}

/** The noise of a tile with its surroundings: what lies there in the noise of the whole image. */
function noiseFor(channels, { y0, x0, y1, x1 }, seed) {
  const [height, width] = [y1 - y0, x1 - x0];
  const noise = noiseAt(channels, y0, x0, height, width, seed);
  return new ort.Tensor("float32", noise, [1, channels, height, width]);
}

/** Round an enlarged tile to integers and put it in its place, interleaved as PNG wants it. */
function paste(output, image, c, tile, sr, scale) {
  const { channels, width } = image;
  const top = 2 ** image.bits - 1;
  const stride = scale * (tile.x1 - tile.x0);
  for (let y = scale * tile.top; y < scale * tile.bottom; y++) {
    let from = (y - scale * tile.y0) * stride + scale * (tile.left - tile.x0);
    let to = (y * scale * width + scale * tile.left) * channels + c;
    for (let x = scale * tile.left; x < scale * tile.right; x++, from++, to += channels) {
      output[to] = roundEven(Math.min(Math.max(sr[from], 0), 1) * top);
    }
  }
}

async function enlarge({ file, model, tile, seed }) {
  const settings = await (await fetched(here("models/settings.json"))).json();
  const { scale, radius, noise_channels: dice, notice } = settings.models[model];
  postMessage({ stage: "Reading the image." });
  const image = await read(file, settings.max_pixels, settings.max_side);
  postMessage({ stage: "Loading the network." });
  const networks = [await session(model), await session("bicubic")];
  const { channels, height, width, bits } = image;
  const size = channels * scale * height * scale * width;
  const outputs = networks.map(() => (bits === 8 ? new Uint8Array(size) : new Uint16Array(size)));
  const list = tiles(height, width, tile ?? settings.tile, radius);
  const of = list.length * channels;
  let done = 0;
  postMessage({ done, of });
  for (const place of list) {
    const noise = dice ? { noise: noiseFor(dice, place, seed) } : {}; // the same in all channels
    for (let c = 0; c < channels; c++) {
      for (const [i, network] of networks.entries()) {
        const { sr } = await network.run({ lr: cut(image, c, place), ...(i === 0 ? noise : {}) });
        paste(outputs[i], image, c, place, sr.data, scale);
        sr.dispose();
      }
      postMessage({ done: ++done, of });
    }
  }
  postMessage({ stage: "Writing the PNG." });
  const [result, bicubic] = outputs.map((data, i) => {
    const text = i === 0 ? { text: { Comment: notice.replace("{seed}", seed) } } : {};
    const [h, w] = [scale * height, scale * width];
    const png = encode({ width: w, height: h, data, depth: bits, channels, ...text });
    return new Blob([png], { type: "image/png" });
  });
  postMessage({ result, bicubic, height: scale * height, width: scale * width, dice: dice > 0 });
}

addEventListener("message", async ({ data }) => {
  try {
    await enlarge(data);
  } catch (error) {
    const known = error instanceof FileError;
    if (!known) console.warn(error);
    postMessage({
      error: known
        ? error.message
        : "The network could not be run; the memory may be too small for this image.",
    });
  }
});
