// Reading files as srgan_lib.images does: values (C, H, W) as integers of 8 or 16 bits.

import dicomParser from "../dicom-parser/dicom-parser.mjs";
import { decode } from "../fast-png/fast-png.mjs";

/** What is wrong with a file, in a sentence for the reader. */
export class FileError extends Error {}

const PNG = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const JPEG = [0xff, 0xd8, 0xff];
const DICM = [0x44, 0x49, 0x43, 0x4d];
const UNCOMPRESSED = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"]; // little endian
const DAMAGED = "The file is damaged or cut short: it can't be decoded.";

/**
 * Read a PNG, JPEG or DICOM file; its content, not its name, says which.
 *
 * Returns {channels, height, width, bits, values}: grey (1) or RGB (3), values channel by channel
 * from 0 to 2^bits - 1. Throws FileError.
 */
export async function read(file, maxPixels, maxSide) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const starts = (mark, at = 0) => mark.every((byte, i) => bytes[at + i] === byte);
  const checkSize = (height, width) => {
    if (height === 0 || width === 0) throw new FileError("The image has no pixels.");
    if (height * width > maxPixels || Math.max(height, width) > maxSide) {
      throw new FileError(
        `The image has ${width} × ${height} pixels; this page takes up to ` +
          `${maxPixels.toLocaleString("en")} pixels and ${maxSide} a side. ` +
          "For larger ones use the command srgan upscale.",
      );
    }
  };
  if (bytes.length === 0) throw new FileError("The file is empty.");
  if (starts(DICM, 128)) return readDicom(bytes, checkSize);
  if (starts(PNG)) return readPng(file, bytes, checkSize);
  if (starts(JPEG)) return readJpeg(file, bytes, checkSize);
  throw new FileError("The file is not a PNG, JPEG or DICOM image.");
}

async function readPng(file, bytes, checkSize) {
  if (bytes.length < 33) throw new FileError(DAMAGED);
  const header = new DataView(bytes.buffer, bytes.byteOffset);
  checkSize(header.getUint32(20), header.getUint32(16));
  const [depth, kind] = [bytes[24], bytes[25]];
  if (depth < 8 || kind === 3) return readByBrowser(file); // bits or a palette, without loss
  let png;
  try {
    png = decode(bytes);
  } catch {
    throw new FileError(DAMAGED);
  }
  if (png.transparency && depth === 8) return readByBrowser(file);
  const { width, height, data } = png;
  const [top, colours] = [2 ** depth - 1, png.channels > 2 ? 3 : 1];
  const alpha = png.channels > colours ? colours : null;
  const size = width * height;
  const values = depth === 16 ? new Uint16Array(colours * size) : new Uint8Array(colours * size);
  for (let i = 0; i < size; i++) {
    const opaque = alpha === null ? 1 : data[i * png.channels + alpha] / top; // laid over black
    for (let c = 0; c < colours; c++) {
      values[c * size + i] = roundEven(data[i * png.channels + c] * opaque);
    }
  }
  return { channels: colours, height, width, bits: depth, values };
}

function readJpeg(file, bytes, checkSize) {
  // The frame's header says size and number of channels; segments before it are passed over.
  let at = 2;
  while (at + 9 < bytes.length && bytes[at] === 0xff) {
    const marker = bytes[at + 1];
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
      checkSize((bytes[at + 5] << 8) | bytes[at + 6], (bytes[at + 7] << 8) | bytes[at + 8]);
      if (bytes[at + 9] === 4) {
        throw new FileError("The JPEG file holds inks (CMYK); save it as grey or RGB.");
      }
      return readByBrowser(file);
    }
    at += marker === 0xff ? 1 : 2 + ((bytes[at + 2] << 8) | bytes[at + 3]);
  }
  throw new FileError(DAMAGED);
}

/** Decode 8 bits as the browser does, without its colour management. */
async function readByBrowser(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    throw new FileError(DAMAGED);
  }
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.fillRect(0, 0, width, height); // black, where the image is not opaque
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  const size = width * height;
  const values = new Uint8Array(3 * size);
  let grey = true;
  for (let i = 0; i < size; i++) {
    const [r, g, b] = [data[4 * i], data[4 * i + 1], data[4 * i + 2]];
    values[i] = r;
    values[size + i] = g;
    values[2 * size + i] = b;
    grey &&= r === g && g === b;
  }
  return grey
    ? { channels: 1, height, width, bits: 8, values: values.slice(0, size) }
    : { channels: 3, height, width, bits: 8, values };
}

function readDicom(bytes, checkSize) {
  let dataset;
  try {
    const syntax = dicomParser.readPart10Header(bytes).string("x00020010");
    if (!UNCOMPRESSED.includes(syntax)) {
      throw new FileError(
        `The DICOM file is compressed or in an unusual byte order (transfer syntax ${syntax}), ` +
          "which this page doesn't read. Use the command srgan upscale, or store the file " +
          "uncompressed first, for example with gdcmconv --raw in.dcm out.dcm",
      );
    }
    dataset = dicomParser.parseDicom(bytes);
  } catch (error) {
    throw error instanceof FileError ? error : new FileError(DAMAGED);
  }
  const pixels = dataset.elements.x7fe00010;
  const number = (tag) => dataset.uint16(tag);
  const [height, width] = [number("x00280010"), number("x00280011")];
  const [allocated, stored] = [number("x00280100"), number("x00280101")];
  const signed = number("x00280103") === 1;
  const kind = (dataset.string("x00280004") ?? "").trim();
  if (!pixels) throw new FileError("The DICOM file holds no pixel data.");
  if (![height, width, allocated, stored].every(Number.isInteger)) throw new FileError(DAMAGED);
  const frames = dataset.intString("x00280008") ?? 1;
  if (frames !== 1) {
    throw new FileError(`The DICOM file has ${frames} frames; save the one you want alone.`);
  }
  checkSize(height, width);
  if (!["MONOCHROME1", "MONOCHROME2"].includes(kind) || ![8, 16].includes(allocated)) {
    throw new FileError(
      `The DICOM file's pixels are ${kind || "of no stated kind"} with ${allocated} bits; this ` +
        "page reads grey ones of 8 or 16 bits. For others use the command srgan upscale.",
    );
  }
  if (dataset.elements.x00283000?.items?.length || dataset.elements.x00283010?.items?.length) {
    throw new FileError(
      "The DICOM file says by a table (LUT) how its values are shown, which this page doesn't " +
        "read. Use the command srgan upscale.",
    );
  }
  if (stored < 1 || stored > allocated || pixels.length < (height * width * allocated) / 8) {
    throw new FileError(DAMAGED);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset + pixels.dataOffset, pixels.length);
  const mask = 2 ** stored - 1; // bits above may hold overlays
  const value = {
    8: signed ? (i) => view.getInt8(i) : (i) => view.getUint8(i) & mask,
    16: signed ? (i) => view.getInt16(2 * i, true) : (i) => view.getUint16(2 * i, true) & mask,
  }[allocated];
  const shown = display(dataset, signed ? [-(2 ** (stored - 1)), 2 ** (stored - 1) - 1] : [0, mask]);
  const values = new Uint16Array(height * width);
  for (let i = 0; i < values.length; i++) {
    const fraction = Math.min(Math.max(shown(value(i)), 0), 1);
    values[i] = roundEven(65535 * (kind === "MONOCHROME1" ? 1 - fraction : fraction));
  }
  return { channels: 1, height, width, bits: 16, values };
}

/** Return the function from a stored value to its brightness (DICOM PS3.3, C.11.1 and C.11.2). */
function display(dataset, [lowest, highest]) {
  const number = (tag) => dataset.floatString(tag); // the first, where there are several
  let [slope, intercept] = [number("x00281053"), number("x00281052")];
  if (slope === undefined || intercept === undefined) [slope, intercept] = [1, 0];
  let [centre, width] = [number("x00281050"), number("x00281051")];
  const law = (dataset.string("x00281056") ?? "LINEAR").trim().toUpperCase();
  if (centre === undefined || width === undefined) {
    const ends = [lowest * slope + intercept, highest * slope + intercept];
    const [low, high] = [Math.min(...ends), Math.max(...ends)];
    if (!(low < high)) throw new FileError("The DICOM file's rescale gives no usable values.");
    return (value) => (value * slope + intercept - low) / (high - low);
  }
  if (![slope, intercept, centre, width].every(Number.isFinite) || slope === 0) {
    throw new FileError("The DICOM file's rescale or window gives no usable values.");
  }
  if (law === "SIGMOID" && width > 0) {
    return (value) => 1 / (1 + Math.exp((-4 * (value * slope + intercept - centre)) / width));
  }
  if (law === "LINEAR" && width >= 1) {
    [centre, width] = [centre - 0.5, width - 1];
  } else if (law !== "LINEAR_EXACT" || width <= 0) {
    throw new FileError("The DICOM file's window can't be understood.");
  }
  return (value) => {
    const x = value * slope + intercept;
    if (x <= centre - width / 2) return 0;
    return x > centre + width / 2 ? 1 : (x - centre) / width + 0.5;
  };
}

/** Round to the nearest integer, halves to the even one, as NumPy and PyTorch do. */
export function roundEven(x) {
  const down = Math.floor(x);
  const rest = x - down;
  return rest > 0.5 || (rest === 0.5 && down % 2 === 1) ? down + 1 : down;
}
