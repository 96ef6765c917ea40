// The newest blocks of the Tangle, as many as asked for and no more, and where each is drawn.

/** Rows that blocks are put into, so that neighbours keep apart. */
const ROWS = 24;
/** Parents that a block has at most; of more nothing is kept. */
const PARENTS_MAX = 8;

export class Dag {
  #nodes = new Map();
  #used = new Array(ROWS).fill(-ROWS);
  #next = 0;

  constructor(limit) {
    this.limit = limit;
    /** Rises with every change, so that whoever draws knows. */
    this.version = 0;
  }

  get size() {
    return this.#nodes.size;
  }

  /** The number of the newest block, and of the oldest that is held. */
  get newest() {
    return this.#next - 1;
  }

  get oldest() {
    return this.#nodes.values().next().value?.number ?? 0;
  }

  get(id) {
    return this.#nodes.get(id);
  }

  /** All, oldest first. */
  nodes() {
    return this.#nodes.values();
  }

  clear() {
    this.#nodes.clear();
    this.version += 1;
  }

  resize(limit) {
    this.limit = limit;
    this.#forget();
  }

  /** Takes a block in, as `/api/v1/events` tells of it; one that is there already stays as it is. */
  add({ id, parents, payload, value, bytes }) {
    if (this.#nodes.has(id)) return;
    const node = {
      id,
      number: this.#next++,
      parents: parents.slice(0, PARENTS_MAX),
      payload,
      value,
      bytes,
      state: "pending",
      milestone: null,
      reason: null,
      children: 0,
      weight: 1,
    };
    node.row = this.#row(node);
    this.#nodes.set(id, node);
    for (const parent of node.parents) {
      const held = this.#nodes.get(parent);
      if (held) held.children += 1;
    }
    this.#forget();
    this.version += 1;
  }

  /** What a milestone made of blocks. */
  confirm(confirmed) {
    for (const { id, status, milestone_index: milestone, reason } of confirmed) {
      const node = this.#nodes.get(id);
      if (node) Object.assign(node, { state: status, milestone, reason });
    }
    this.version += 1;
  }

  /** Says which milestone a block carries. */
  carries(id, index) {
    const node = this.#nodes.get(id);
    if (node) node.carried = index;
  }

  /** What a block is drawn as. */
  static look(node) {
    if (node.payload === "milestone") return "milestone";
    return node.state === "pending" && node.children === 0 ? "tip" : node.state;
  }

  /** Counts, for each block, those held here that approve it, directly or not, and itself. */
  weigh() {
    const words = Math.ceil((this.#nodes.size + 1) / 32);
    const nodes = [...this.#nodes.values()];
    const place = new Map(nodes.map((node, at) => [node.id, at]));
    const future = new Uint32Array(words * nodes.length);
    for (let at = nodes.length - 1; at >= 0; at -= 1) {
      const row = at * words;
      future[row + (at >>> 5)] |= 1 << (at & 31);
      let weight = 0;
      // Only blocks that came later can approve it.
      for (let word = at >>> 5; word < words; word += 1) weight += bits(future[row + word]);
      nodes[at].weight = weight;
      for (const parent of nodes[at].parents) {
        const target = place.get(parent);
        if (target === undefined || target >= at) continue;
        for (let word = at >>> 5; word < words; word += 1) future[target * words + word] |= future[row + word];
      }
    }
  }

  /** A row near the parents that nobody used of late. */
  #row(node) {
    const held = node.parents.map((parent) => this.#nodes.get(parent)).filter(Boolean);
    const middle = held.length ? held.reduce((sum, parent) => sum + parent.row, 0) / held.length : ROWS / 2;
    let best = 0;
    let least = Infinity;
    for (let row = 0; row < ROWS; row += 1) {
      const crowd = (ROWS * 3) / (node.number - this.#used[row]);
      const near = ROWS / (node.number - Math.max(this.#used[row - 1] ?? -ROWS, this.#used[row + 1] ?? -ROWS));
      const cost = Math.abs(row - middle) + Math.abs(row - ROWS / 2) * 0.3 + crowd + near;
      if (cost < least) [best, least] = [row, cost];
    }
    this.#used[best] = node.number;
    // A little off the row, so that it does not look like a grid.
    return best + ((parseInt(node.id.slice(0, 4), 16) || 0) / 0xffff - 0.5) * 0.7;
  }

  #forget() {
    for (const id of this.#nodes.keys()) {
      if (this.#nodes.size <= this.limit) break;
      this.#nodes.delete(id);
      this.version += 1;
    }
  }
}

export { ROWS };

function bits(word) {
  let left = word - ((word >>> 1) & 0x55555555);
  left = (left & 0x33333333) + ((left >>> 2) & 0x33333333);
  return (((left + (left >>> 4)) & 0x0f0f0f0f) * 0x01010101) >>> 24;
}
