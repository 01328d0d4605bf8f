/**
 * A picture as the model sees it, pixel by pixel as `convmixer predict` makes it: resized with antialiasing so that
 * the centre crop covers the fraction `crop` of its short side. A canvas's own resizing is another one.
 *
 * The arithmetic is that of TensorFlow's ScaleAndTranslate with its kernels "triangle" and "keyscubic", in float32.
 */

import type { Input } from "./messages";

/** As many pixels as are decoded elsewhere, see keras_convmixer/data/pillow_image.py. */
export const MOST_PIXELS = 89_478_485;
/** How many are read from the picture at a time: a canvas that held a large photograph would be too large for some. */
const STRIP_PIXELS = 2 ** 21;

/** The part of a picture that becomes the model's image. */
export interface Crop {
  /** Height and width of the whole picture when resized. */
  resized: [number, number];
  /** Top and left of the model's image in that. */
  offset: [number, number];
}

/** Which source pixels make an output pixel, from `start`, and by how much each. */
interface Span {
  start: number;
  weights: Float32Array;
}

/** The picture in a file, as Python reads it: whatever its colour profile, and turned as its EXIF orientation says. */
export function decoded(file: Blob): Promise<ImageBitmap> {
  return createImageBitmap(file, { colorSpaceConversion: "none", imageOrientation: "from-image" });
}

export function cropOf(height: number, width: number, input: Input): Crop {
  const [leastHeight, leastWidth] = [input.height, input.width].map((side) => Math.floor(side / input.crop));
  const resized: [number, number] =
    height * leastWidth >= width * leastHeight
      ? [Math.floor((leastWidth * height) / width), leastWidth]
      : [leastHeight, Math.floor((leastHeight * width) / height)];
  return { resized, offset: [halfToEven((resized[0] - input.height) / 2), halfToEven((resized[1] - input.width) / 2)] };
}

/** The model's image of a picture. */
export interface ModelImage {
  /** Red, green and blue of each pixel, row by row, whole numbers in 0 to 255. */
  values: Float32Array;
  /** Whether the picture has pixels of which nothing is to be seen: a canvas makes them black, whatever they were. */
  transparent: boolean;
}

export function modelImage(picture: ImageBitmap, input: Input): ModelImage {
  const { resized, offset } = cropOf(picture.height, picture.width, input);
  const rows = spans(picture.height, resized[0], offset[0], input.height, input.interpolation);
  const columns = spans(picture.width, resized[1], offset[1], input.width, input.interpolation);
  const left = Math.min(...columns.map((span) => span.start));
  const right = Math.max(...columns.map((span) => span.start + span.weights.length));

  // First the rows: each line of pixels is added to the lines of the result that it has a part in.
  const line = 3 * (right - left);
  const lines = new Float32Array(rows.length * line);
  let transparent = false;
  for (const { top, height, pixels } of strips(picture, left, right)) {
    transparent ||= isSomeTransparent(pixels);
    rows.forEach(({ start, weights }, row) => {
      const from = Math.max(start, top);
      const to = Math.min(start + weights.length, top + height);
      for (let y = from; y < to; y++) {
        add(lines, row * line, pixels, (y - top) * (right - left) * 4, line, weights[y - start]);
      }
    });
  }

  // Then the columns.
  const values = new Float32Array(3 * input.height * input.width);
  let place = 0;
  for (let row = 0; row < input.height; row++) {
    for (const { start, weights } of columns) {
      for (let channel = 0; channel < 3; channel++, place++) {
        let at = row * line + 3 * (start - left) + channel;
        let sum = 0;
        for (let i = 0; i < weights.length; i++, at += 3) sum += lines[at] * weights[i];
        values[place] = halfToEven(Math.min(Math.max(sum, 0), 255));
      }
    }
  }
  return { values, transparent };
}

function isSomeTransparent(pixels: Uint8ClampedArray): boolean {
  for (let at = 3; at < pixels.length; at += 4) if (pixels[at] === 0) return true;
  return false;
}

/** Adds a line of pixels, of which every fourth number is transparency, times a weight. */
function add(lines: Float32Array, to: number, pixels: Uint8ClampedArray, from: number, count: number, weight: number) {
  for (let end = to + count; to < end; to += 3, from += 4) {
    lines[to] += weight * pixels[from];
    lines[to + 1] += weight * pixels[from + 1];
    lines[to + 2] += weight * pixels[from + 2];
  }
}

/** The columns from `left` to `right` of a picture, some lines at a time. */
function* strips(picture: ImageBitmap, left: number, right: number) {
  const width = right - left;
  const most = Math.min(Math.max(1, Math.floor(STRIP_PIXELS / width)), picture.height);
  const context = new OffscreenCanvas(width, most).getContext("2d", { willReadFrequently: true });
  if (!context) throw new Error("this browser gives no canvas to read pixels from");
  context.globalCompositeOperation = "copy";
  context.imageSmoothingEnabled = false;
  for (let top = 0; top < picture.height; top += most) {
    const height = Math.min(most, picture.height - top);
    context.drawImage(picture, left, top, width, height, 0, 0, width, height);
    yield { top, height, pixels: context.getImageData(0, 0, width, height).data };
  }
}

function spans(source: number, resized: number, offset: number, size: number, kind: Input["interpolation"]): Span[] {
  if (source === resized || kind === "nearest") {
    return Array.from({ length: size }, (_, i) => {
      return { start: Math.floor(((2 * (i + offset) + 1) * source) / (2 * resized)), weights: new Float32Array([1]) };
    });
  }
  const [kernel, radius] = kind === "bicubic" ? ([cubic, 2] as const) : ([triangle, 1] as const);
  const ratio = Math.fround(1 / Math.fround(resized / source));
  const widened = Math.max(ratio, 1);
  return Array.from({ length: size }, (_, i) => {
    const centre = Math.fround(Math.fround((i + 0.5) * ratio) + Math.fround(ratio * offset));
    const first = Math.max(0, Math.ceil(centre - radius * widened - 0.5));
    const last = Math.min(source - 1, Math.floor(centre + radius * widened - 0.5));
    const weights = Float32Array.from({ length: last - first + 1 }, (_, j) =>
      kernel(Math.abs((first + j + 0.5 - centre) / widened)),
    );
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    return { start: first, weights: weights.map((weight) => weight / total) };
  });
}

function triangle(x: number): number {
  return Math.max(0, 1 - x);
}

/** Keys' cubic convolution with a = -1/2. */
function cubic(x: number): number {
  if (x >= 2) return 0;
  return x >= 1 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : (1.5 * x - 2.5) * x * x + 1;
}

function halfToEven(x: number): number {
  const rounded = Math.round(x);
  return rounded - x === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}
