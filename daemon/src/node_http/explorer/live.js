// The live Tangle with its controls, and the figures above it.

import { ask } from "./ask.js";
import { Dag } from "./dag.js";
import { Painter } from "./draw.js";
import { Feed } from "./feed.js";
import { STATES, amount, bytes, count, el, link, short, state } from "./page.js";

/** Rows of the table, and milliseconds between two looks at what changes more slowly than blocks come. */
const ROWS_SHOWN = 12;
const FIGURES_EVERY = 500;
const INFO_EVERY = 2000;
/** Pixels that a pointer may move within a click, and that an arrow moves the picture. */
const CLICK_SLACK = 5;
const ARROW = 60;

const part = (id) => document.getElementById(id);

export const dag = new Dag(Number(part("limit").value));
export const feed = new Feed(dag);
export const painter = new Painter(part("dag"), dag);

/** Starts to follow the node. */
export function start() {
  wireControls();
  wirePointer();
  wireKeys();
  feed.start();
  requestAnimationFrame(frame);
  setInterval(figures, FIGURES_EVERY);
  setInterval(info, INFO_EVERY);
  info();
}

function frame() {
  if (!part("live").hidden) {
    if (painter.frame()) describe();
    part("follow").setAttribute("aria-pressed", String(painter.following));
  }
  requestAnimationFrame(frame);
}

function info() {
  if (document.hidden) return;
  ask(["info"]).then(
    (answer) => {
      part("network").textContent = answer.network_name;
      part("tips").textContent = count(answer.tips);
    },
    () => {
      part("tips").textContent = "–";
    },
  );
}

function figures() {
  part("blocks-rate").textContent = feed.blocks.now().toFixed(1);
  part("applied-rate").textContent = feed.applied.now().toFixed(1);
  part("connection").textContent = feed.missed ? `${feed.connection}, missed ${count(feed.missed)}` : feed.connection;
  if (feed.milestone !== null) {
    part("milestone").replaceChildren(el("a", { href: `#/milestone/${feed.milestone}` }, count(feed.milestone)));
    part("since").textContent = ago((performance.now() - feed.milestoneAt) / 1000);
  }
  if (part("live").hidden) return;
  if (painter.sizeBy === "weight") weigh();
  part("pause").textContent = feed.paused ? `Go on (${count(feed.waiting)} wait)` : "Pause";
  part("empty").hidden = dag.size > 0;
  table();
}

/** The newest blocks, for those who do not see the picture. */
function table() {
  const nodes = [...dag.nodes()].filter((node) => painter.matches(node));
  const all = painter.filter === "" ? "" : ` of ${count(dag.size)}`;
  part("shown").textContent = `${count(nodes.length)}${all} blocks shown`;
  const body = part("newest");
  // Who is about to follow a link in it does not lose it.
  if (body.contains(document.activeElement) || body.matches(":hover")) return;
  body.replaceChildren(...nodes.slice(-ROWS_SHOWN).reverse().map(row));
}

function row(node) {
  return el(
    "tr",
    {},
    el("td", {}, link("block", node.id, short(node.id))),
    el("td", {}, look(node)),
    el("td", {}, node.payload === "empty" ? "nothing" : node.payload),
    el("td", { className: "number" }, node.payload === "transaction" ? amount(node.value) : ""),
    el("td", { className: "number" }, count(node.bytes)),
  );
}

function look(node) {
  const name = Dag.look(node);
  return state(name, name === "milestone" && node.carried !== undefined ? `milestone ${node.carried}` : STATES[name]);
}

function weigh() {
  if (weigh.version === dag.version) return;
  weigh.version = dag.version;
  dag.weigh();
  painter.touch();
}

function ago(seconds) {
  if (seconds < 100) return `${seconds.toFixed(1)} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 100 ? `${minutes} min` : `${count(Math.floor(minutes / 60))} h`;
}

function wireControls() {
  part("filter").addEventListener("input", (event) => {
    painter.filter = event.target.value.trim().toLowerCase();
    painter.touch();
    table();
  });
  part("size").addEventListener("change", (event) => {
    painter.sizeBy = event.target.value;
    if (painter.sizeBy === "weight") weigh();
    painter.touch();
  });
  part("limit").addEventListener("change", (event) => dag.resize(Number(event.target.value)));
  part("pause").addEventListener("click", pause);
  part("zoom-in").addEventListener("click", () => painter.zoom(1.5));
  part("zoom-out").addEventListener("click", () => painter.zoom(1 / 1.5));
  part("follow").addEventListener("click", () => (painter.following = !painter.following));
}

function pause() {
  if (feed.paused) feed.resume();
  else feed.pause();
  part("pause").setAttribute("aria-pressed", String(feed.paused));
  figures();
}

function wirePointer() {
  const canvas = part("dag");
  const pointers = new Map();
  let moved = 0;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
    if (pointers.size === 1) moved = 0;
  });
  canvas.addEventListener("pointermove", (event) => {
    const now = { x: event.offsetX, y: event.offsetY };
    const last = pointers.get(event.pointerId);
    if (!last) {
      hover(painter.at(now.x, now.y));
      return;
    }
    const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const wide = (to) => Math.max(Math.hypot(to.x - other.x, to.y - other.y), 1);
      painter.zoom(wide(now) / wide(last), (now.x + other.x) / 2, (now.y + other.y) / 2);
      moved = Infinity;
    } else {
      moved += Math.abs(now.x - last.x) + Math.abs(now.y - last.y);
      if (moved > CLICK_SLACK) painter.move(now.x - last.x, now.y - last.y);
    }
    pointers.set(event.pointerId, now);
  });
  canvas.addEventListener("pointerup", (event) => {
    if (pointers.delete(event.pointerId) && moved <= CLICK_SLACK) open(painter.at(event.offsetX, event.offsetY));
  });
  canvas.addEventListener("pointercancel", (event) => pointers.delete(event.pointerId));
  canvas.addEventListener("pointerleave", () => hover(null));
  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      painter.zoom(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
    },
    { passive: false },
  );
}

function wireKeys() {
  const canvas = part("dag");
  const moves = { ArrowLeft: [ARROW, 0], ArrowRight: [-ARROW, 0], ArrowUp: [0, ARROW], ArrowDown: [0, -ARROW] };
  const keys = {
    ArrowLeft: () => choose(-1),
    ArrowRight: () => choose(1),
    Enter: () => open(dag.get(painter.chosen)),
    " ": pause,
    "+": () => painter.zoom(1.5),
    "-": () => painter.zoom(1 / 1.5),
    0: () => (painter.following = true),
    Escape: () => mark("chosen", null),
  };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const move = event.shiftKey && moves[event.key];
    const done = move ? () => painter.move(...move) : keys[event.key];
    if (!done) return;
    event.preventDefault();
    done();
  });
  canvas.addEventListener("blur", () => mark("chosen", null));
}

/** Chooses the block before or after the chosen one, of those that the filter lets through. */
function choose(steps) {
  const nodes = [...dag.nodes()].filter((node) => painter.matches(node));
  const now = nodes.findIndex((node) => node.id === painter.chosen);
  const next = now < 0 ? nodes.at(-1) : nodes[Math.min(Math.max(now + steps, 0), nodes.length - 1)];
  if (!next) return;
  painter.show(next);
  mark("chosen", next);
}

function hover(node) {
  part("dag").classList.toggle("over", node !== null);
  mark("hovered", node);
}

function mark(how, node) {
  const id = node?.id ?? null;
  if (painter[how] === id) return;
  painter[how] = id;
  painter.touch();
}

/** Shows what is known of the marked block beside it. */
function describe() {
  const shown = dag.get(painter.hovered) ?? dag.get(painter.chosen);
  const tip = part("tip");
  tip.hidden = !shown;
  if (!shown) return;
  const lines = [
    el("p", { className: "id" }, short(shown.id)),
    el("p", {}, look(shown), shown.milestone ? `; confirmed by milestone ${shown.milestone}` : ""),
    shown.reason ? el("p", {}, shown.reason) : null,
    shown.payload === "transaction" ? el("p", {}, `transaction, ${amount(shown.value)} in outputs`) : null,
    shown.payload === "data" ? el("p", {}, "data") : null,
    el("p", { className: "soft" }, `${bytes(shown.bytes)}, approves ${shown.parents.length}, approved by ${shown.children}`),
  ];
  tip.replaceChildren(...lines.filter(Boolean));
  const { x, y } = painter.place(shown);
  const canvas = part("dag");
  const left = x + 16 + tip.offsetWidth > canvas.clientWidth ? x - 16 - tip.offsetWidth : x + 16;
  const top = Math.min(y + 12, canvas.clientHeight - tip.offsetHeight - 4);
  tip.style.transform = `translate(${Math.max(left, 4)}px, ${Math.max(top, 4)}px)`;
}

function open(node) {
  if (node) location.hash = `#/block/${node.id}`;
}
