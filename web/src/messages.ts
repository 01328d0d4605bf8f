/** What the page and its worker say to each other, and what the files beside the page say to both. */

/** `page.json`: the model, written by the export. */
export interface Site {
  name: string;
  /** The files of the model, the most exact first. */
  forms: Form[];
  /** A file of float32 numbers (classes, channels) that make class activation maps of the last block's map, or null. */
  class_weights: string | null;
  /** What is to be said of the model: terms and texts. */
  card: [string, string][];
}

export interface Form {
  file: string;
  numbers: string;
  bytes: number;
}

/** `input.json`: what to do with an image before the model gets it. */
export interface Input {
  width: number;
  height: number;
  crop: number;
  interpolation: "nearest" | "bilinear" | "bicubic";
}

export type Device = "wasm" | "webgpu";

export type Request =
  | { kind: "load"; form: Form; device: Device; input: Input; classes: number }
  | { kind: "classify"; id: number; picture: Blob | ImageBitmap }
  | { kind: "map"; file: string; place: number }
  | { kind: "measure" };

export type Reply =
  | { kind: "loaded"; maps: boolean; threads: number; milliseconds: number }
  | Classified
  | { kind: "mapped"; map: ClassMap }
  | { kind: "measured"; runs: number; milliseconds: number }
  | { kind: "failed"; of: Request["kind"]; message: string };

export interface Classified {
  kind: "classified";
  id: number;
  /** Of every class, in the order of the labels. */
  probabilities: Float32Array;
  /** Whether parts of the picture are transparent, which count as black. */
  transparent: boolean;
  /** What the model looked at, to be shown. */
  view: ImageBitmap;
  /** How long it took to decode and resize the picture, and to run the model. */
  preparing: number;
  running: number;
}

/** How much each place of the picture speaks for a class: 0 to 1, row by row. */
export interface ClassMap {
  width: number;
  height: number;
  values: Float32Array;
}
