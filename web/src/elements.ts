/** Numbers as they are read, and the elements that lists are made of. */

export function percent(fraction: number): string {
  return `${(100 * fraction).toFixed(1)} %`;
}

export function milliseconds(value: number): string {
  return `${value.toFixed(value < 10 ? 1 : 0)} ms`;
}

export function seconds(value: number): string {
  return `${(value / 1000).toFixed(1)} s`;
}

export function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

/** A class with its probability and a bar. */
export function classLine(label: string, probability: number): HTMLElement {
  const score = element("span", percent(probability), "score");
  score.dataset.probability = String(probability);
  const bar = document.createElement("progress");
  bar.value = probability;
  bar.setAttribute("aria-hidden", "true"); // The score says the same.
  const line = document.createElement("li");
  line.append(element("span", label, "name"), score, bar);
  return line;
}

/** A term and what it means, as a list of definitions has them. */
export function definition([term, text]: [string, string]): HTMLElement {
  const row = document.createElement("div");
  row.append(element("dt", term), element("dd", text));
  return row;
}

/** Fills a field with a choice of one, which is shown where there are several. The first is chosen. */
export function offer(field: HTMLElement, names: string[], choose: (place: number) => void): void {
  field.hidden = names.length < 2;
  names.forEach((name, place) => {
    const radio = document.createElement("input");
    radio.type = "radio";
    radio.name = field.id;
    radio.checked = place === 0;
    radio.addEventListener("change", () => choose(place));
    const label = document.createElement("label");
    label.append(radio, name);
    field.append(label);
  });
}

function element(kind: string, text: string, className = ""): HTMLElement {
  const made = document.createElement(kind);
  made.textContent = text;
  made.className = className;
  return made;
}
