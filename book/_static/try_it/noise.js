// The dice of networks with noise inputs: the same numbers as srgan_lib.noise draws.

/** Hash four whole numbers of 32 bits in place; pcg4d, see srgan_lib.noise for its source. */
function hash(x) {
  for (let i = 0; i < 4; i++) x[i] = Math.imul(x[i], 1664525) + 1013904223;
  mix(x);
  for (let i = 0; i < 4; i++) x[i] ^= x[i] >>> 16;
  mix(x);
}

function mix(x) {
  // The array wraps what is stored in it at 2^32.
  x[0] += Math.imul(x[1], x[3]);
  x[1] += Math.imul(x[2], x[0]);
  x[2] += Math.imul(x[0], x[1]);
  x[3] += Math.imul(x[1], x[2]);
}

/** Standard normal noise of a window: Float32Array (channels, height, width). */
export function noiseAt(channels, top, left, height, width, seed) {
  const size = height * width;
  const noise = new Float32Array(channels * size);
  const x = new Uint32Array(4);
  for (let first = 0; first < channels; first += 4) {
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < width; column++) {
        x[0] = left + column;
        x[1] = top + row;
        x[2] = first / 4;
        x[3] = seed;
        hash(x);
        const place = first * size + row * width + column;
        for (let i = 0; i < Math.min(4, channels - first); i += 2) {
          const radius = Math.sqrt(-2 * Math.log((x[i] + 0.5) / 2 ** 32));
          const angle = (2 * Math.PI * (x[i + 1] + 0.5)) / 2 ** 32;
          noise[place + i * size] = radius * Math.cos(angle);
          if (first + i + 1 < channels) noise[place + (i + 1) * size] = radius * Math.sin(angle);
        }
      }
    }
  }
  return noise;
}
