/** The model, away from the page so that the page stays awake: one worker for each form of the model and device. */

import { loadAndCompile, loadLiteRt, supportsFeature, Tensor, type CompiledModel } from "@litertjs/core";
import type { ClassMap, Device, Form, Input, Reply, Request } from "./messages";
import { cropOf, decoded, modelImage, MOST_PIXELS } from "./pixels";

const WASM = new URL("wasm/", location.href).href;
const THREADED = "litert_wasm_threaded_internal.js";
/** One thread. LiteRT.js's third build, of one thread with relaxed SIMD, was no faster. */
const PLAIN = "litert_wasm_compat_internal.js";
const MAGIC = "TFL3"; // the file identifier of a TFLite file, at byte 4
/** What is shown of a picture is at most so wide and high. */
const MOST_SHOWN = 640;
/** How long a measurement takes, and after how many runs at the earliest it ends. */
const MEASURING = 2000;
const FEWEST_RUNS = 3;

/** What goes wrong for a reason that can be told in a line. */
class Failure extends Error {}

interface Loaded {
  model: CompiledModel;
  input: Input;
  bytes: boolean;
}

let loaded: Loaded | undefined;
let lastImage: Float32Array | undefined;
/** The last block's map for the picture that was classified last, and its shape. */
let features: { values: Float32Array; height: number; width: number } | undefined;
let classWeights: Promise<Float32Array> | undefined;

const port = self as unknown as {
  onmessage: ((event: MessageEvent<Request>) => void) | null;
  postMessage(reply: Reply, transfer?: Transferable[]): void;
};

/** One at a time, in the order in which they came. */
let work: Promise<void> = Promise.resolve();

port.onmessage = ({ data: request }) => {
  work = work.then(() => answer(request)).catch((error: unknown) => {
    const message = error instanceof Error ? error.message : String(error);
    const text = error instanceof Failure ? message : `${WHAT_FAILED[request.kind]}: ${message.split("\n")[0]}`;
    port.postMessage({ kind: "failed", of: request.kind, message: text });
  });
};

const WHAT_FAILED = {
  load: "The model cannot be loaded",
  classify: "The picture cannot be classified",
  map: "The map cannot be made",
  measure: "The speed cannot be measured",
};

async function answer(request: Request): Promise<void> {
  if (request.kind === "load") {
    await load(request);
  } else if (request.kind === "classify") {
    await classify(request.id, request.picture);
  } else if (request.kind === "map") {
    port.postMessage({ kind: "mapped", map: await classMap(request.file, request.place) });
  } else {
    await measure();
  }
}

async function load(request: Extract<Request, { kind: "load" }>): Promise<void> {
  const began = performance.now();
  const content = await download(request.form);
  const runtime = await startRuntime(request.device);
  if (request.device === "webgpu" && !runtime.getWebGpuDevice()) throw new Failure("No GPU can be used here");
  const options = { accelerator: request.device, gpuOptions: { precision: "fp32" as const } };
  const model = await loadAndCompile(content, options);
  if (request.device === "webgpu" && !model.isFullyAccelerated) {
    throw new Failure(`The GPU cannot run all of ${request.form.file}`);
  }
  const [images] = model.getInputDetails();
  const outputs = model.getOutputDetails();
  const scores = outputs.find((output) => output.name === "probabilities");
  const { width, height } = request.input;
  const shape = [...images.shape].join("×");
  if (shape !== `1×${height}×${width}×3`) throw new Failure(`${request.form.file} takes ${shape}, not input.json's`);
  if (!scores) throw new Failure(`${request.form.file} gives no probabilities: export it again`);
  if (scores.shape.at(-1) !== request.classes) {
    throw new Failure(`${request.form.file} has ${scores.shape.at(-1)} outputs, and labels.txt ${request.classes} lines`);
  }
  loaded = { model, input: request.input, bytes: images.dtype === "uint8" };
  port.postMessage({
    kind: "loaded",
    maps: outputs.some((output) => output.name === "features"),
    threads: request.device === "wasm" ? runtime.liteRtWasm.getThreadCount() : 0,
    milliseconds: performance.now() - began,
  });
}

async function download(form: Form): Promise<Uint8Array> {
  const content = await fetched(form.file);
  const magic = String.fromCharCode(...content.subarray(4, 8));
  if (magic !== MAGIC || content.length !== form.bytes) {
    throw new Failure(`${form.file} is not the model that was exported: damaged, or not all of it was copied`);
  }
  return content;
}

async function fetched(file: string): Promise<Uint8Array> {
  const response = await fetch(new URL(file, location.href)).catch(() => {
    throw new Failure(`${file} cannot be downloaded: is the server still there?`);
  });
  if (!response.ok) throw new Failure(`${file} cannot be downloaded: the server answered ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

async function startRuntime(device: Device) {
  const script = WASM + (device === "wasm" && (await canHaveThreads()) ? THREADED : PLAIN);
  // LiteRT.js's parts look for each other beside this worker's script, unless they are told.
  const Module = {
    locateFile: (name: string) => WASM + name,
    mainScriptUrlOrBlob: script,
    print: () => undefined,
    printErr: () => undefined,
  };
  Object.assign(self, { Module });
  try {
    return await loadLiteRt(script);
  } catch (error) {
    throw new Failure(`LiteRT.js cannot be started: ${error instanceof Error ? error.message : "no answer"}`);
  }
}

/** Threads share memory, which a browser allows where the server sends the headers for it. */
async function canHaveThreads(): Promise<boolean> {
  return self.crossOriginIsolated && (await supportsFeature("threads")) && supportsFeature("relaxedSimd");
}

async function classify(id: number, picture: Blob | ImageBitmap): Promise<void> {
  const { input } = ready();
  const began = performance.now();
  const bitmap = picture instanceof ImageBitmap ? picture : await opened(picture);
  try {
    if (bitmap.width * bitmap.height > MOST_PIXELS) {
      const megapixels = ((bitmap.width * bitmap.height) / 1e6).toFixed(0);
      throw new Failure(`The picture has ${megapixels} megapixels; ${(MOST_PIXELS / 1e6).toFixed(0)} are the most`);
    }
    const { values, transparent } = modelImage(bitmap, input);
    lastImage = values;
    const between = performance.now();
    const probabilities = await run(lastImage);
    const running = performance.now() - between;
    const view = await shown(bitmap, input);
    port.postMessage(
      { kind: "classified", id, probabilities, transparent, view, preparing: between - began, running },
      [probabilities.buffer as ArrayBuffer, view],
    );
  } finally {
    bitmap.close();
  }
}

async function opened(file: Blob): Promise<ImageBitmap> {
  try {
    return await decoded(file);
  } catch {
    throw new Failure(`${file instanceof File ? file.name : "This"} is no picture that this browser can read`);
  }
}

/** Runs the model, keeps the last block's map, and returns the probabilities. */
async function run(image: Float32Array): Promise<Float32Array> {
  const { model, input, bytes } = ready();
  const shape = [1, input.height, input.width, 3];
  const images = new Tensor(bytes ? Uint8Array.from(image) : image, shape);
  try {
    const outputs = await model.run({ images });
    const values: Record<string, Float32Array> = {};
    for (const [name, tensor] of Object.entries(outputs)) {
      values[name] = Float32Array.from(await tensor.data());
      tensor.delete();
    }
    features = undefined;
    if (values.features) {
      const shape = model.getOutputDetails().find((output) => output.name === "features")!.shape;
      features = { values: values.features, height: shape[1], width: shape[2] };
    }
    return values.probabilities;
  } finally {
    images.delete();
  }
}

function ready(): Loaded {
  if (!loaded) throw new Failure("There is no model to classify with");
  return loaded;
}

/** What the model looked at: the crop, in as many pixels as are shown. */
async function shown(picture: ImageBitmap, input: Input): Promise<ImageBitmap> {
  const { resized, offset } = cropOf(picture.height, picture.width, input);
  const [y, x] = [picture.height / resized[0], picture.width / resized[1]];
  const [width, height] = [input.width * x, input.height * y];
  const scale = Math.min(1, MOST_SHOWN / Math.max(width, height));
  const canvas = new OffscreenCanvas(Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale)));
  const context = canvas.getContext("2d");
  if (context) {
    context.imageSmoothingQuality = "high";
    context.drawImage(picture, offset[1] * x, offset[0] * y, width, height, 0, 0, canvas.width, canvas.height);
  }
  return canvas.transferToImageBitmap();
}

/**
 * A class activation map (Zhou et al. 2016, arXiv 1512.04150): the last block's map, its channels weighted as the head
 * weighs them for the class, from 0 where the least speaks for it to 1 where the most does.
 */
async function classMap(file: string, place: number): Promise<ClassMap> {
  if (!features) throw new Failure("Classify a picture first");
  classWeights ??= fetched(file).then(({ buffer }) => new Float32Array(buffer as ArrayBuffer));
  const weights = await classWeights;
  const { values, height, width } = features;
  const channels = values.length / (height * width);
  const own = weights.subarray(place * channels, (place + 1) * channels);
  if (own.length !== channels) throw new Failure(`${file} is not of this model: export it again`);
  const map = new Float32Array(height * width);
  for (let i = 0; i < map.length; i++) {
    let sum = 0;
    for (let channel = 0; channel < channels; channel++) sum += own[channel] * values[i * channels + channel];
    map[i] = sum;
  }
  const least = map.reduce((a, b) => Math.min(a, b));
  const range = map.reduce((a, b) => Math.max(a, b)) - least;
  return { width, height, values: map.map((value) => (range > 0 ? (value - least) / range : 0)) };
}

async function measure(): Promise<void> {
  if (!lastImage) throw new Failure("Classify a picture first");
  const times: number[] = [];
  const end = performance.now() + MEASURING;
  while (performance.now() < end || times.length < FEWEST_RUNS) {
    const began = performance.now();
    await run(lastImage);
    times.push(performance.now() - began);
  }
  times.sort((a, b) => a - b);
  port.postMessage({ kind: "measured", runs: times.length, milliseconds: times[times.length >> 1] });
}
