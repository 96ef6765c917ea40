// Making parts of the page, and writing things the way people read them. All text goes in as text.

const SVG = "http://www.w3.org/2000/svg";

/** An element with properties and children; strings become text. */
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

const UNITS = [["Pi", 15], ["Ti", 12], ["Gi", 9], ["Mi", 6], ["Ki", 3]];

/** An amount of base units as wallets write it: 1500 is `1.5Ki`. */
export function amount(units) {
  const digits = String(units);
  const unit = UNITS.find(([, zeros]) => digits.length > zeros);
  if (!unit) return `${digits}i`;
  const [name, zeros] = unit;
  const fraction = digits.slice(-zeros).replace(/0+$/, "");
  return `${digits.slice(0, -zeros)}${fraction ? `.${fraction}` : ""}${name}`;
}

/** An amount with its base units written out. */
export function exact(units) {
  return `${amount(units)} (${count(BigInt(units))} i)`;
}

export function count(number) {
  return number.toLocaleString("en");
}

export function bytes(number) {
  return `${count(number)} ${number === 1 ? "byte" : "bytes"}`;
}

export function time(milliseconds) {
  const date = new Date(milliseconds);
  return Number.isNaN(date.getTime()) ? String(milliseconds) : `${date.toISOString().replace("T", " ").replace("Z", "")} UTC`;
}

export function short(id) {
  return id.length > 20 ? `${id.slice(0, 12)}…` : id;
}

/** A link to what has this id. */
export function link(kind, id, text = id) {
  const title = text === id ? "" : id;
  return el("a", { className: "id", href: `#/${kind}/${encodeURIComponent(id)}`, title }, String(text));
}

/** What becomes of blocks, in words. */
export const STATES = {
  tip: "pending, a tip",
  pending: "pending",
  included: "confirmed",
  applied: "applied",
  rejected: "conflicting",
  milestone: "milestone",
};

const SHAPES = {
  tip: "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0M-1 0a1 1 0 1 0 2 0a1 1 0 1 0-2 0",
  pending: "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0",
  included: "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0",
  applied: "M-5-5h10v10h-10Z",
  rejected: "M-5-5 5 5M-5 5 5-5",
  milestone: "M0-7 7 0 0 7-7 0Z",
};

/** A state as its shape and its word. */
export function state(name, text = STATES[name] ?? name) {
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("viewBox", "-8 -8 16 16");
  picture.setAttribute("class", `s-${name}`);
  picture.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", SHAPES[name] ?? SHAPES.pending);
  picture.append(path);
  return el("span", { className: "state" }, picture, text);
}
