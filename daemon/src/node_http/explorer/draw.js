// Draws the Tangle on a canvas: the newest to the right, every state with a colour and a shape.

import { Dag, ROWS } from "./dag.js";

const LOOKS = ["pending", "tip", "included", "applied", "rejected", "milestone"];
const HOLLOW = new Set(["pending", "tip", "rejected"]);
/** Pixels at the edges, between neighbours at most, and of a block at least and at most. */
const EDGE = 26;
const STEP_MAX = 26;
const RADIUS_MIN = 1.6;
const RADIUS_MAX = 7;
const RADIUS_MILESTONE = 4.5;
/** Milliseconds in which most of the way to the newest block is gone; of drawing, a share of the time at most. */
const GLIDE = 120;
const SHARE = 0.3;
/** Lines that are drawn at once: a path of many thousands takes a browser longer than many short ones. */
const LINES = 250;
/** Pixels around a block that count as on it. */
const REACH = 8;
const ZOOM_MAX = 60;

export class Painter {
  #canvas;
  #dag;
  #pen;
  #colours = {};
  #drawn = -1;
  #last = 0;
  #rest = 0;
  #calm = matchMedia("(prefers-reduced-motion: reduce)");

  constructor(canvas, dag) {
    this.#canvas = canvas;
    this.#dag = dag;
    this.#pen = canvas.getContext("2d");
    this.filter = "";
    this.sizeBy = "equal";
    this.hovered = null;
    this.chosen = null;
    this.following = true;
    /** What is seen: the number at the right edge, pixels per block, times the height, pixels moved down. */
    this.view = { right: 0, step: STEP_MAX, tall: 1, down: 0 };
    new ResizeObserver(() => this.#resize()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#readColours());
    this.#readColours();
    this.#resize();
  }

  /** To be drawn again, though the blocks are the same. */
  touch() {
    this.#drawn = -1;
  }

  /** Draws if anything changed, and says so; leaves time for everything else. To be called once a frame. */
  frame() {
    const began = performance.now();
    if (began < this.#rest) return false;
    if (this.following) this.#follow(began - this.#last);
    this.#last = began;
    if (this.#drawn === this.#dag.version) return false;
    this.#drawn = this.#dag.version;
    this.#draw();
    const took = performance.now() - began;
    this.#rest = began + took / SHARE - took;
    return true;
  }

  /** Where a block is, in pixels of the canvas. */
  place(node) {
    const { right, step, tall, down } = this.view;
    const height = this.#height - 2 * EDGE;
    return {
      x: this.#width - EDGE - (right - node.number) * step,
      y: EDGE + (((node.row + 0.5) / ROWS) * height - height / 2) * tall + height / 2 + down,
    };
  }

  /** The block at a place. */
  at(x, y) {
    let found = null;
    let least = Infinity;
    for (const node of this.#dag.nodes()) {
      const place = this.place(node);
      const distance = Math.hypot(place.x - x, place.y - y);
      if (distance < least && distance <= this.#radius(node) + REACH && this.matches(node)) {
        [found, least] = [node, distance];
      }
    }
    return found;
  }

  matches(node) {
    return this.filter === "" || node.id.startsWith(this.filter);
  }

  zoom(factor, x = this.#width / 2, y = this.#height / 2) {
    this.following = false;
    const { view } = this;
    const tall = Math.min(Math.max(view.tall * factor, 1), ZOOM_MAX);
    const step = Math.min(Math.max(view.step * factor, 0.1), STEP_MAX * ZOOM_MAX);
    const under = view.right - (this.#width - EDGE - x) / view.step;
    view.right = under + (this.#width - EDGE - x) / step;
    const middle = this.#height / 2;
    view.down = tall === 1 ? 0 : y - middle - ((y - middle - view.down) * tall) / view.tall;
    Object.assign(view, { tall, step });
    this.touch();
  }

  move(dx, dy) {
    this.following = false;
    this.view.right -= dx / this.view.step;
    this.view.down += dy;
    this.touch();
  }

  /** Brings a block into sight. */
  show(node) {
    if (this.following) return;
    const { x, y } = this.place(node);
    const dx = Math.max(EDGE - x, 0) + Math.min(this.#width - EDGE - x, 0);
    const dy = Math.max(EDGE - y, 0) + Math.min(this.#height - EDGE - y, 0);
    if (dx !== 0 || dy !== 0) this.move(dx, dy);
  }

  get #width() {
    return this.#canvas.clientWidth;
  }

  get #height() {
    return this.#canvas.clientHeight;
  }

  #resize() {
    const ratio = window.devicePixelRatio || 1;
    this.#canvas.width = Math.max(1, Math.round(this.#width * ratio));
    this.#canvas.height = Math.max(1, Math.round(this.#height * ratio));
    this.#pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.touch();
  }

  #readColours() {
    const style = getComputedStyle(document.documentElement);
    for (const name of [...LOOKS, "edge", "guide", "chosen", "soft", "card"]) {
      this.#colours[name] = style.getPropertyValue(`--${name}`).trim();
    }
    this.touch();
  }

  /** Moves softly to where all blocks are seen. */
  #follow(passed) {
    const span = Math.max(this.#dag.newest - this.#dag.oldest, 1);
    const step = Math.min((this.#width - 2 * EDGE) / span, STEP_MAX);
    const { view } = this;
    const far = Math.abs(this.#dag.newest - view.right) * step;
    const settled = far < 0.5 && Math.abs(step - view.step) * span < 0.5 && view.tall === 1;
    const jump = this.#calm.matches || far > 4 * this.#width || settled;
    const part = jump ? 1 : 1 - Math.exp(-passed / GLIDE);
    if (settled && view.right === this.#dag.newest && view.step === step) return;
    view.right += (this.#dag.newest - view.right) * part;
    view.step += (step - view.step) * part;
    Object.assign(view, { tall: 1, down: 0 });
    this.touch();
  }

  #radius(node) {
    const room = Math.sqrt(this.view.step * (this.#height / ROWS) * this.view.tall);
    const base = Math.min(Math.max(room * 0.4, RADIUS_MIN), RADIUS_MAX);
    const radius = Math.max(base * this.#scale(node), RADIUS_MIN);
    return node.payload === "milestone" ? Math.max(radius * 1.25, RADIUS_MILESTONE) : radius;
  }

  #scale(node) {
    switch (this.sizeBy) {
      case "weight":
        return 0.6 + (1.4 * Math.log2(node.weight)) / Math.log2(this.#dag.size + 1);
      case "value":
        // The number of digits: amounts differ by many orders of magnitude.
        return node.value === "0" ? 0.6 : 0.7 + node.value.length / 12;
      case "bytes":
        return 0.6 + Math.max(0, Math.log2(node.bytes / 64)) / 7;
      default:
        return 1;
    }
  }

  #draw() {
    const pen = this.#pen;
    pen.clearRect(0, 0, this.#width, this.#height);
    const seen = [];
    for (const node of this.#dag.nodes()) {
      const place = this.place(node);
      if (place.x > -EDGE && place.x < this.#width + EDGE) seen.push([node, place]);
    }
    this.#drawGuides(seen);
    this.#drawEdges(seen);
    const groups = new Map();
    for (const entry of seen) {
      const key = `${Dag.look(entry[0])} ${this.matches(entry[0])}`;
      if (!groups.has(key)) groups.set(key, []);
      groups.get(key).push(entry);
    }
    for (const faint of [true, false]) {
      for (const look of LOOKS) this.#drawGroup(look, groups.get(`${look} ${!faint}`) ?? [], faint);
    }
    for (const node of [this.#dag.get(this.chosen), this.#dag.get(this.hovered)]) if (node) this.#drawRing(node);
  }

  /** A line and the index at each milestone, where there is room. */
  #drawGuides(seen) {
    const pen = this.#pen;
    pen.strokeStyle = this.#colours.guide;
    pen.fillStyle = this.#colours.soft;
    pen.font = "11px system-ui, sans-serif";
    pen.textAlign = "center";
    pen.lineWidth = 1;
    let last = -Infinity;
    pen.beginPath();
    for (const [node, { x }] of seen) {
      if (node.payload !== "milestone") continue;
      pen.moveTo(x, 16);
      pen.lineTo(x, this.#height);
      if (node.carried !== undefined && x - last > 46) {
        pen.fillText(String(node.carried), x, 12);
        last = x;
      }
    }
    pen.stroke();
  }

  #drawEdges(seen) {
    const pen = this.#pen;
    const strong = new Set([this.hovered, this.chosen]);
    const marked = [];
    pen.strokeStyle = this.#colours.edge;
    pen.lineWidth = 1;
    pen.globalAlpha = this.filter ? 0.15 : Math.min(0.75, Math.max(0.25, this.view.step / 12));
    pen.beginPath();
    let lines = 0;
    for (const [node, from] of seen) {
      for (const id of node.parents) {
        const parent = this.#dag.get(id);
        if (!parent) continue;
        const to = this.place(parent);
        pen.moveTo(from.x, from.y);
        pen.lineTo(to.x, to.y);
        if (strong.has(node.id) || strong.has(id)) marked.push([from, to]);
        lines += 1;
        if (lines % LINES === 0) {
          pen.stroke();
          pen.beginPath();
        }
      }
    }
    pen.stroke();
    pen.globalAlpha = 1;
    pen.strokeStyle = this.#colours.chosen;
    pen.lineWidth = 1.5;
    pen.beginPath();
    for (const [from, to] of marked) {
      pen.moveTo(from.x, from.y);
      pen.lineTo(to.x, to.y);
    }
    pen.stroke();
  }

  #drawGroup(look, entries, faint) {
    if (entries.length === 0) return;
    const pen = this.#pen;
    pen.globalAlpha = faint ? 0.18 : 1;
    pen.beginPath();
    for (const [node, { x, y }] of entries) trace(pen, look, x, y, this.#radius(node));
    if (HOLLOW.has(look)) {
      // What is below does not shine through.
      pen.fillStyle = this.#colours.card;
      if (look !== "rejected") pen.fill();
      pen.strokeStyle = this.#colours[look];
      pen.lineWidth = look === "rejected" ? 2.4 : 1.8;
      pen.stroke();
    } else {
      pen.fillStyle = this.#colours[look];
      pen.fill();
    }
    if (look === "tip") {
      pen.fillStyle = this.#colours.tip;
      pen.beginPath();
      for (const [node, { x, y }] of entries) trace(pen, look, x, y, this.#radius(node) * 0.35);
      pen.fill();
    }
    pen.globalAlpha = 1;
  }

  #drawRing(node) {
    const { x, y } = this.place(node);
    this.#pen.strokeStyle = this.#colours.chosen;
    this.#pen.lineWidth = 2;
    this.#pen.beginPath();
    this.#pen.arc(x, y, this.#radius(node) + 4, 0, 2 * Math.PI);
    this.#pen.stroke();
  }
}

/** Adds a block's shape to the path. */
function trace(pen, look, x, y, radius) {
  const half = radius * 0.9;
  switch (look) {
    case "applied":
      pen.rect(x - half, y - half, 2 * half, 2 * half);
      break;
    case "rejected":
      pen.moveTo(x - half, y - half);
      pen.lineTo(x + half, y + half);
      pen.moveTo(x - half, y + half);
      pen.lineTo(x + half, y - half);
      break;
    case "milestone":
      pen.moveTo(x, y - radius * 1.2);
      pen.lineTo(x + radius * 1.2, y);
      pen.lineTo(x, y + radius * 1.2);
      pen.lineTo(x - radius * 1.2, y);
      pen.closePath();
      break;
    default:
      pen.moveTo(x + radius, y);
      pen.arc(x, y, radius, 0, 2 * Math.PI);
  }
}
