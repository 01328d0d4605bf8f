// A browser at the page, driven by lines of JSON on stdin, each answered by one on stdout: node browser.js CHROMIUM URL
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { chromium } from "playwright-core";

const [executablePath, url, ...more] = process.argv.slice(2);
// A camera that shows a moving picture, which every page may use.
const camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"];
const args = ["--no-sandbox", "--disable-dev-shm-usage", ...camera, ...more];
const browser = await chromium.launch({ executablePath, args });
let page;
let requests;
let problems;
let downloaded;

const steps = {
  /** Opens the page anew. simd: false takes it from the browser. */
  async open({ at = url, simd = true, camera = "denied", wait = true, viewport, dark = false }) {
    await page?.context().close();
    const context = await browser.newContext({ viewport, colorScheme: dark ? "dark" : "light" });
    page = await context.newPage();
    [requests, problems, downloaded] = [[], [], 0];
    page.on("request", (request) => requests.push(request.url()));
    page.on("response", async (response) => {
      downloaded += Number((await response.allHeaders())["content-length"] ?? 0);
    });
    page.on("pageerror", (error) => problems.push(String(error)));
    page.on("console", (message) => {
      if (message.type() === "error") problems.push(message.text());
    });
    if (!simd) {
      await page.addInitScript(() => {
        WebAssembly.validate = () => false;
      });
    }
    await page.addInitScript((name) => {
      const refuse = async () => {
        throw new DOMException("", name);
      };
      if (name) Object.defineProperty(navigator, "mediaDevices", { value: { getUserMedia: refuse } });
    }, { denied: "NotAllowedError", none: "NotFoundError" }[camera]);
    await page.goto(at);
    if (wait) await page.waitForFunction(() => document.body.dataset.ready ?? document.body.dataset.failed);
    return seen();
  },
  /** Chooses a file and waits until it is classified, or a message says why it is not. */
  async choose({ file }) {
    return afterAnswer(() => page.locator("#file").setInputFiles(file));
  },
  /** Drops a file on the page, or pastes one. content: text, or path: a file's. */
  async give({ by = "drop", name, type, content = "", path }) {
    const bytes = path ? (await readFile(path)).toString("base64") : Buffer.from(content).toString("base64");
    const give = ({ by, name, type, bytes }) => {
      const dataTransfer = new DataTransfer();
      const content = Uint8Array.from(atob(bytes), (character) => character.charCodeAt(0));
      if (name) dataTransfer.items.add(new File([content], name, { type }));
      const options = { bubbles: true, cancelable: true };
      document.dispatchEvent(
        by === "drop"
          ? new DragEvent("drop", { dataTransfer, ...options })
          : new ClipboardEvent("paste", { clipboardData: dataTransfer, ...options }),
      );
    };
    return afterAnswer(() => page.evaluate(give, { by, name, type, bytes }));
  },
  async press({ name }) {
    return afterAnswer(() => page.getByRole("button", { name }).click());
  },
  /** Takes a form of the model by its name. */
  async take({ form }) {
    return afterAnswer(() => page.getByRole("radio", { name: form }).check());
  },
  async shoot({ to, full = true }) {
    await page.waitForTimeout(150);
    await page.screenshot({ path: to, fullPage: full });
    return {};
  },
  /** Follows the Tab key from the page's start: what it comes by. */
  async tab({ times }) {
    const names = [];
    await page.evaluate(() => document.activeElement?.blur());
    for (let i = 0; i < times; i++) {
      await page.keyboard.press("Tab");
      names.push(await page.evaluate(() => document.activeElement.textContent || document.activeElement.type));
    }
    return { names };
  },
  /** The model's image of a file, as the worker makes it: whole numbers in a line of base64. */
  async pixels({ file, input }) {
    const entry = fileURLToPath(new URL("../src/pixels.ts", import.meta.url));
    const options = { entryPoints: [entry], bundle: true, write: false, globalName: "pixels" };
    const [{ text }] = (await build(options)).outputFiles;
    const content = (await readFile(file)).toString("base64");
    const make = `(async () => {
      ${text}
      const bytes = Uint8Array.from(atob("${content}"), (c) => c.charCodeAt(0));
      const bitmap = await pixels.decoded(new Blob([bytes]));
      const image = Uint8Array.from(pixels.modelImage(bitmap, ${JSON.stringify(input)}).values);
      return btoa(Array.from(image, (value) => String.fromCharCode(value)).join(""));
    })()`;
    return { value: await page.evaluate(make) };
  },
  /** The first line that a page logs. */
  async logged({ at }) {
    const other = await browser.newPage();
    const said = other.waitForEvent("console", (message) => message.type() === "log");
    await other.goto(at);
    const text = (await said).text();
    await other.close();
    return { text };
  },
  async evaluate({ script }) {
    return { value: await page.evaluate(script) };
  },
};

/** Does something, and waits until the page has answered. */
async function afterAnswer(act) {
  const state = () => JSON.stringify({ ...document.body.dataset, ready: 0 });
  const before = await page.evaluate(state);
  await act();
  await page.waitForFunction((before) => JSON.stringify({ ...document.body.dataset, ready: 0 }) !== before, before, {
    timeout: 120_000,
  });
  return seen();
}

async function seen() {
  return page.evaluate(
    (of) => ({
      ...of,
      status: document.getElementById("status").textContent,
      problem: document.getElementById("problem").hidden ? "" : document.getElementById("problem").textContent,
      classes: [...document.querySelectorAll("#classes li")].map((line) => [
        line.querySelector(".name").textContent,
        Number(line.querySelector(".score").dataset.probability),
      ]),
      isolated: self.crossOriginIsolated,
      overflow: document.documentElement.scrollWidth > innerWidth,
    }),
    { requests, problems, downloaded },
  );
}

for await (const line of createInterface({ input: process.stdin })) {
  const { step, ...options } = JSON.parse(line);
  const answer = await steps[step](options).catch((error) => ({ error: String(error) }));
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await browser.close();
