/** What is on the page: pictures go to the worker, what it answers is shown. */

import type { Classified, ClassMap, Device, Form, Input, Reply, Request, Site } from "./messages";

const TOP = 5;
/** A picture of fewer columns is shown in squares, and not blurred. */
const COARSE = 64;
/** How dark the map makes what says least of the class, of 255. */
const SHADE = 215;
const TRANSPARENT = " The picture's transparent parts count as black.";
/** A module of one SIMD instruction, by which a browser that has none is told. */
const SIMD = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
]);

const at = <T extends HTMLElement>(id: string) => document.getElementById(id) as T;
const view = at<HTMLCanvasElement>("view");
const overlay = at<HTMLCanvasElement>("overlay");
const video = at<HTMLVideoElement>("camera-view");
const mapButton = at<HTMLButtonElement>("map");
const cameraButton = at<HTMLButtonElement>("camera");
const measureButton = at<HTMLButtonElement>("measure");

let site: Site;
let input: Input;
let labels: string[];
let form: Form;
let device: Device = "wasm";

let worker: Worker | undefined;
let isLoaded = false;
let stream: MediaStream | undefined;
/** The picture that was last given, to be classified again with another form. */
let picture: Blob | undefined;
let lastId = 0;
/** The likeliest class of the picture that is shown; before there is one, -1. */
let likeliest = -1;

function say(text: string): void {
  at("status").textContent = text;
}

/** Shows what went wrong until something goes well. */
function complain(text: string): void {
  if (text) tell("failed");
  const problem = at("problem");
  problem.textContent = text;
  problem.hidden = text === "";
}

/** Counts what happened where a test, or whoever drives the page, can see it. */
function tell(event: "ready" | "shown" | "mapped" | "failed"): void {
  const { dataset } = document.body;
  dataset[event] = String(Number(dataset[event] ?? 0) + 1);
}

function ask(request: Request, transfer: Transferable[] = []): void {
  worker?.postMessage(request, transfer);
}

// The model.

async function start(): Promise<void> {
  const lacking = whatIsLacking();
  if (lacking) throw new Error(lacking);
  [site, input] = await Promise.all([read("page.json"), read("input.json")]);
  labels = ((await read("labels.txt", "text")) as string).replace(/\r?\n$/, "").split(/\r?\n/);
  at("name").textContent = document.title = site.name;
  at("stage").style.aspectRatio = `${input.width} / ${input.height}`;
  showCard();
  [form] = site.forms;
  const forms = site.forms.map((one) => [one.numbers, one === form] as const);
  offer("forms", forms, (place) => load(site.forms[place], device));
  load(form, device);
  if (await hasGpu()) {
    const devices = [["CPU", true], ["GPU", false]] as const;
    offer("devices", devices, (place) => load(form, place ? "webgpu" : "wasm"));
  }
}

function whatIsLacking(): string {
  if (location.protocol === "file:") return "This page needs a web server: python -m http.server, say, in its folder.";
  if (typeof OffscreenCanvas === "undefined") return "This browser is too old: it has no OffscreenCanvas.";
  if (typeof WebAssembly === "undefined" || !WebAssembly.validate(SIMD)) {
    return "This browser has no WebAssembly with SIMD, which the model needs: update it, or take another.";
  }
  return "";
}

async function read(file: string, as: "json" | "text" = "json") {
  const response = await fetch(file);
  if (!response.ok) throw new Error(`${file} cannot be downloaded: the server answered ${response.status}.`);
  return response[as]().catch(() => {
    throw new Error(`${file} is not what the export wrote.`);
  });
}

async function hasGpu(): Promise<boolean> {
  const { gpu } = navigator as { gpu?: { requestAdapter(): Promise<unknown> } };
  return Boolean(await gpu?.requestAdapter().catch(() => null));
}

function load(chosen: Form, on: Device): void {
  [form, device] = [chosen, on];
  worker?.terminate();
  isLoaded = false;
  mapButton.hidden = mapButton.disabled = measureButton.disabled = true;
  worker = new Worker("worker.js");
  worker.onmessage = ({ data }: MessageEvent<Reply>) => hear(data);
  worker.onerror = (event) => {
    event.preventDefault();
    failed("load", "The model cannot be run in this browser.");
  };
  say(`Loading ${form.file}, ${megabytes(form.bytes)}…`);
  complain("");
  ask({ kind: "load", form, device, input, classes: labels.length });
}

function hear(reply: Reply): void {
  if (reply.kind === "loaded") {
    isLoaded = true;
    mapButton.hidden = !(reply.maps && site.class_weights);
    const threads = reply.threads > 1 ? `, ${reply.threads} threads` : "";
    const where = device === "webgpu" ? "the GPU" : `the CPU${threads}`;
    say(`Ready on ${where}, after ${seconds(reply.milliseconds)}.`);
    tell("ready");
    if (picture) classify(picture);
    else if (stream) nextFrame();
  } else if (reply.kind === "classified") {
    show(reply);
  } else if (reply.kind === "mapped") {
    drawMap(reply.map);
  } else if (reply.kind === "measured") {
    showSpeed(reply.milliseconds);
    say(`Median of ${reply.runs} runs: ${milliseconds(reply.milliseconds)}.`);
    measureButton.disabled = false;
  } else {
    failed(reply.of, reply.message);
  }
}

function failed(of: Request["kind"], message: string): void {
  if (of === "classify") {
    stopCamera();
    picture = undefined; // It would fail again with another form.
  }
  say(of === "load" ? "There is no model." : "");
  complain(message);
  measureButton.disabled = !isLoaded || likeliest < 0;
  if (of === "load" && site.forms.length > 1) at("problem").append(" Another form of it can be chosen below.");
}

// Pictures.

function classify(given: Blob): void {
  picture = given;
  if (!isLoaded) return; // Once the model is there it is classified.
  say("Classifying…");
  ask({ kind: "classify", id: ++lastId, picture: given });
}

/** Takes the first picture of what was dropped, pasted or chosen. */
function take(files: Iterable<File>): void {
  const given = [...files];
  if (!given.length) return complain("There is no picture in that.");
  stopCamera();
  classify(given.find((file) => file.type.startsWith("image/")) ?? given[0]);
}

function show(reply: Classified): void {
  if (reply.id !== lastId) return reply.view.close();
  complain("");
  const best = [...reply.probabilities.keys()].sort((a, b) => reply.probabilities[b] - reply.probabilities[a]);
  const list = at<HTMLOListElement>("classes");
  list.replaceChildren(...best.slice(0, TOP).map((i) => classLine(labels[i], reply.probabilities[i])));
  likeliest = best[0];
  view.width = reply.view.width;
  view.height = reply.view.height;
  view.getContext("bitmaprenderer")!.transferFromImageBitmap(reply.view);
  view.classList.toggle("coarse", view.width < COARSE);
  view.setAttribute("aria-label", `The picture, as the model sees it: ${labels[likeliest]}`);
  at("invitation").hidden = true;
  view.hidden = Boolean(stream);
  showSpeed(reply.running);
  at("preparing").textContent = milliseconds(reply.preparing);
  mapButton.disabled = measureButton.disabled = false;
  if (mapButton.getAttribute("aria-pressed") === "true") askForMap();
  else overlay.hidden = true;
  if (stream) nextFrame();
  else say(`${labels[likeliest]}, ${percent(reply.probabilities[likeliest])}.${reply.transparent ? TRANSPARENT : ""}`);
  tell("shown");
}

function classLine(label: string, probability: number): HTMLLIElement {
  const line = document.createElement("li");
  const name = document.createElement("span");
  name.className = "name";
  name.textContent = label;
  const score = document.createElement("span");
  score.className = "score";
  score.textContent = percent(probability);
  score.dataset.probability = String(probability);
  const bar = document.createElement("progress");
  bar.max = 1;
  bar.value = probability;
  bar.setAttribute("aria-hidden", "true");
  line.append(name, score, bar);
  return line;
}

// The camera.

async function toggleCamera(): Promise<void> {
  if (stream) return stopCamera();
  try {
    if (!navigator.mediaDevices) throw new DOMException("", "SecurityError");
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    return complain(whyNoCamera(error));
  }
  cameraButton.setAttribute("aria-pressed", "true");
  picture = undefined;
  complain("");
  stream.getVideoTracks()[0].onended = () => {
    stopCamera();
    complain("The camera is gone.");
  };
  video.srcObject = stream;
  await video.play();
  view.hidden = at("invitation").hidden = true;
  video.hidden = false;
  say("The camera is on.");
  if (isLoaded) nextFrame();
}

function whyNoCamera(error: unknown): string {
  const name = error instanceof DOMException ? error.name : "";
  if (name === "NotAllowedError") return "The camera was not allowed. Pictures can be dropped, pasted or chosen.";
  if (name === "NotFoundError") return "There is no camera here. Pictures can be dropped, pasted or chosen.";
  if (name === "SecurityError") return "A browser gives a camera only to pages served over https, or from localhost.";
  return "The camera cannot be used: another program may have it.";
}

function stopCamera(): void {
  stream?.getTracks().forEach((track) => track.stop());
  view.hidden = likeliest < 0;
  stream = undefined;
  video.srcObject = null;
  video.hidden = true;
  at("invitation").hidden = !view.hidden;
  cameraButton.setAttribute("aria-pressed", "false");
}

/** Classifies what the camera sees now. The next one follows when this one is shown. */
function nextFrame(): void {
  requestAnimationFrame(async () => {
    if (!stream || !isLoaded) return;
    if (video.readyState < video.HAVE_CURRENT_DATA) return nextFrame();
    try {
      const frame = await createImageBitmap(video);
      ask({ kind: "classify", id: ++lastId, picture: frame }, [frame]);
    } catch {
      failed("classify", "The camera's picture cannot be read.");
    }
  });
}

// The map.

function toggleMap(): void {
  const on = mapButton.getAttribute("aria-pressed") !== "true";
  mapButton.setAttribute("aria-pressed", String(on));
  overlay.hidden = true;
  if (on) askForMap();
}

function askForMap(): void {
  ask({ kind: "map", file: site.class_weights!, place: likeliest });
}

function drawMap({ width, height, values }: ClassMap): void {
  if (mapButton.getAttribute("aria-pressed") !== "true") return;
  const image = new ImageData(width, height);
  values.forEach((value, i) => image.data.set([0, 0, 0, SHADE * (1 - value)], 4 * i));
  overlay.width = width;
  overlay.height = height;
  overlay.getContext("2d")!.putImageData(image, 0, 0);
  overlay.hidden = false;
  tell("mapped");
  if (!stream) say(`Bright is what speaks most for ${labels[likeliest]}.`);
}

// Words and numbers.

function showCard(): void {
  const rows = site.card.map(([term, text]) => {
    const row = document.createElement("div");
    const name = document.createElement("dt");
    const value = document.createElement("dd");
    name.textContent = term;
    value.textContent = text;
    row.append(name, value);
    return row;
  });
  at("card").replaceChildren(...rows);
}

/** A choice of one, where there are several. */
function offer(id: string, choices: readonly (readonly [string, boolean])[], choose: (place: number) => void): void {
  const field = at<HTMLFieldSetElement>(id);
  field.hidden = choices.length < 2;
  choices.forEach(([name, checked], place) => {
    const label = document.createElement("label");
    const radio = document.createElement("input");
    radio.type = "radio";
    radio.name = id;
    radio.checked = checked;
    radio.addEventListener("change", () => choose(place));
    label.append(radio, name);
    field.append(label);
  });
}

function showSpeed(running: number): void {
  at("latency").textContent = milliseconds(running);
  at("rate").textContent = (1000 / Math.max(running, 0.1)).toFixed(running > 100 ? 1 : 0);
}

function percent(fraction: number): string {
  return `${(100 * fraction).toFixed(1)} %`;
}

function milliseconds(value: number): string {
  return `${value.toFixed(value < 10 ? 1 : 0)} ms`;
}

function seconds(value: number): string {
  return `${(value / 1000).toFixed(1)} s`;
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

// What the user does.

at("choose").addEventListener("click", () => at("file").click());
at<HTMLInputElement>("file").addEventListener("change", ({ target }) => {
  const chosen = target as HTMLInputElement;
  if (chosen.files?.length) take(chosen.files);
  chosen.value = ""; // so that the same file can be chosen again
});
cameraButton.addEventListener("click", () => void toggleCamera());
mapButton.addEventListener("click", toggleMap);
measureButton.addEventListener("click", () => {
  measureButton.disabled = true;
  say("Measuring…");
  ask({ kind: "measure" });
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  take(event.dataTransfer?.files ?? []);
});
document.addEventListener("paste", (event) => take(event.clipboardData?.files ?? []));

start().catch((error: Error) => {
  say("");
  complain(error.message);
});
