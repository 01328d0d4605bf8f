/** What is on the page: pictures go to the worker, what it answers is shown. */

import { Camera } from "./camera";
import { classLine, definition, megabytes, milliseconds, offer, percent, seconds } from "./elements";
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
const mapButton = at<HTMLButtonElement>("map");
const cameraButton = at<HTMLButtonElement>("camera");
const measureButton = at<HTMLButtonElement>("measure");
const camera = new Camera(at("camera-view"), () => {
  stopCamera();
  complain("The camera is gone.");
});

let site: Site;
let input: Input;
let labels: string[];
let form: Form;
let device: Device;

let worker: Worker | undefined;
let isLoaded = false;
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
  at("card").replaceChildren(...site.card.map(definition));
  const forms = site.forms.map((one) => one.numbers);
  offer(at("forms"), forms, (place) => load(site.forms[place], device));
  load(site.forms[0], "wasm");
  const devices = (await hasGpu()) ? ["CPU", "GPU"] : ["CPU"];
  offer(at("devices"), devices, (place) => load(form, place === 0 ? "wasm" : "webgpu"));
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
  forget();
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

/** Takes back what another form has answered. Its picture stays, to be classified again; one of the camera does not. */
function forget(): void {
  likeliest = -1;
  at("classes").replaceChildren();
  for (const figure of ["latency", "rate", "preparing"]) at(figure).textContent = "–";
  overlay.hidden = true;
  if (picture) return;
  view.hidden = true;
  at("invitation").hidden = camera.isOn;
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
    else if (camera.isOn) void nextFrame();
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
  view.hidden = camera.isOn;
  showSpeed(reply.running);
  at("preparing").textContent = milliseconds(reply.preparing);
  mapButton.disabled = measureButton.disabled = false;
  if (mapButton.getAttribute("aria-pressed") === "true") askForMap();
  else overlay.hidden = true;
  if (camera.isOn) void nextFrame();
  else say(`${labels[likeliest]}, ${percent(reply.probabilities[likeliest])}.${reply.transparent ? TRANSPARENT : ""}`);
  tell("shown");
}

// The camera.

async function toggleCamera(): Promise<void> {
  if (camera.isOn) return stopCamera();
  try {
    await camera.start();
  } catch (error) {
    return complain((error as Error).message);
  }
  cameraButton.setAttribute("aria-pressed", "true");
  picture = undefined;
  view.hidden = at("invitation").hidden = true;
  complain("");
  say("The camera is on.");
  void nextFrame();
}

function stopCamera(): void {
  camera.stop();
  cameraButton.setAttribute("aria-pressed", "false");
  view.hidden = likeliest < 0;
  at("invitation").hidden = !view.hidden;
}

/** Classifies what the camera sees now. The next one follows when this one is shown. */
async function nextFrame(): Promise<void> {
  try {
    const frame = await camera.frame();
    if (frame && isLoaded) ask({ kind: "classify", id: ++lastId, picture: frame }, [frame]);
  } catch {
    failed("classify", "The camera's picture cannot be read.");
  }
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
  if (!camera.isOn) say(`Bright is what speaks most for ${labels[likeliest]}.`);
}

function showSpeed(running: number): void {
  at("latency").textContent = milliseconds(running);
  at("rate").textContent = (1000 / Math.max(running, 0.1)).toFixed(running > 100 ? 1 : 0);
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
