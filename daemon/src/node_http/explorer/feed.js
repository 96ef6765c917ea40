// What happens on the node: first what is there, then every block and milestone as it comes.

import { ask, askIfKnown, address } from "./ask.js";

/** Blocks that are asked for at the beginning, milestones that are looked through for them, questions at once. */
const BEGINNING = 300;
const MILESTONES = 40;
const AT_ONCE = 4;
/** Milliseconds until a lost connection is tried again. */
const RETRY = 2000;
/** Seconds over which rates are taken. */
const RATE_SECONDS = 10;

/** How often something happens in a second, lately. */
export class Rate {
  #counts = new Array(RATE_SECONDS).fill(0);
  #began = null;
  #second = 0;

  add(number, now = performance.now()) {
    this.#turn(now);
    this.#counts[this.#second % RATE_SECONDS] += number;
  }

  /** Per second. */
  now(now = performance.now()) {
    this.#turn(now);
    const seconds = Math.min((now - this.#began) / 1000, RATE_SECONDS - 1 + ((now / 1000) % 1));
    return this.#counts.reduce((sum, number) => sum + number, 0) / Math.max(seconds, 1);
  }

  #turn(now) {
    const second = Math.floor(now / 1000);
    if (this.#began === null) [this.#began, this.#second] = [now, second];
    for (let steps = 0; this.#second < second && steps < RATE_SECONDS; steps += 1) {
      this.#second += 1;
      this.#counts[this.#second % RATE_SECONDS] = 0;
    }
    this.#second = second;
  }
}

/** Follows the node and fills a Dag. */
export class Feed extends EventTarget {
  #dag;
  #source = null;
  #held = [];
  #heldBlocks = 0;
  #lost = false;
  #filling = false;

  constructor(dag) {
    super();
    this.#dag = dag;
    this.paused = false;
    this.connection = "connecting";
    this.missed = 0;
    this.milestone = null;
    this.milestoneAt = null;
    this.blocks = new Rate();
    this.applied = new Rate();
  }

  /** Blocks that wait while it is paused. */
  get waiting() {
    return this.#heldBlocks;
  }

  start() {
    this.#source = new EventSource(address(["events"]));
    this.#source.addEventListener("open", () => this.#opened());
    this.#source.addEventListener("block", (event) => this.#block(JSON.parse(event.data)));
    this.#source.addEventListener("milestone", (event) => this.#milestone(JSON.parse(event.data)));
    this.#source.addEventListener("missed", (event) => (this.missed += JSON.parse(event.data)));
    this.#source.addEventListener("error", () => this.#failed());
  }

  pause() {
    this.paused = true;
  }

  resume() {
    this.paused = false;
    if (!this.#filling) this.#release();
  }

  #opened() {
    this.connection = "live";
    this.#filling = true;
    this.#fill()
      .catch(() => (this.connection = "live, without what was before"))
      .finally(() => {
        this.#filling = false;
        if (!this.paused) this.#release();
      });
  }

  #failed() {
    this.connection = "lost, trying again";
    // A browser tries again by itself unless it was refused.
    if (this.#source.readyState !== EventSource.CLOSED) return;
    this.#source.close();
    setTimeout(() => this.start(), RETRY);
  }

  #block(block) {
    this.blocks.add(1);
    this.#take({ block });
  }

  #milestone(milestone) {
    this.applied.add(milestone.confirmed.filter((block) => block.status === "applied").length);
    this.#reached(milestone.index, performance.now());
    this.#take({ milestone });
    this.dispatchEvent(new Event("milestone"));
  }

  #reached(index, at) {
    this.milestone = index;
    this.milestoneAt = at;
  }

  #take(told) {
    if (!this.paused && !this.#filling) {
      this.#apply(told);
      return;
    }
    this.#held.push(told);
    if (told.block) this.#heldBlocks += 1;
    // As many wait as are shown, so that the oldest would not be shown any more.
    while (this.#heldBlocks > this.#dag.limit || this.#held.length > this.#dag.limit * 2) {
      if (this.#held.shift().block) this.#heldBlocks -= 1;
      this.#lost = true;
    }
  }

  #release() {
    if (this.#lost) this.#dag.clear();
    const held = this.#held;
    [this.#held, this.#heldBlocks, this.#lost] = [[], 0, false];
    for (const told of held) this.#apply(told);
  }

  #apply({ block, milestone }) {
    if (block) {
      this.#dag.add(block);
      return;
    }
    this.#dag.confirm(milestone.confirmed);
    this.#dag.carries(milestone.block, milestone.index);
  }

  /** Takes in the newest of what is there. */
  async #fill() {
    const latest = await ask(["milestones", "latest"]).catch(() => null);
    const states = new Map();
    let oldest = 0;
    if (latest) {
      this.#reached(latest.index, performance.now() - Math.max(0, Date.now() - latest.timestamp_ms));
      for (let index = latest.index, steps = 0; index > 0 && steps < MILESTONES; index -= 1, steps += 1) {
        const included = await askIfKnown(["milestones", String(index), "blocks"], { limit: BEGINNING });
        for (const block of included?.blocks ?? []) states.set(block.id, block);
        oldest = index;
        if (states.size >= BEGINNING) break;
      }
    }
    const tips = await ask(["tips"]);
    const wanted = [...tips, ...(latest?.block ? [latest.block] : []), ...states.keys()];
    const blocks = await this.#blocks(wanted, states, oldest);
    for (const block of inOrder(blocks)) this.#dag.add(block);
    this.#dag.confirm([...states.values()]);
    for (const { id, carried } of blocks.values()) if (carried) this.#dag.carries(id, carried);
  }

  /** Those blocks and the ones below them down to the `oldest` milestone. What became of those that `states` does not
   * know is added to it. */
  async #blocks(wanted, states, oldest) {
    const found = new Map();
    const asked = new Set();
    let next = new Set(wanted);
    while (next.size > 0 && asked.size < BEGINNING) {
      const batch = [...next].slice(0, BEGINNING - asked.size);
      next = new Set();
      for (let from = 0; from < batch.length; from += AT_ONCE) {
        const some = batch.slice(from, from + AT_ONCE);
        for (const id of some) asked.add(id);
        for (const block of await Promise.all(some.map((id) => lookUp(id, states)))) {
          if (!block || (block.milestone !== null && block.milestone < oldest)) continue;
          found.set(block.id, block);
          for (const parent of block.parents) if (!asked.has(parent)) next.add(parent);
        }
      }
    }
    return found;
  }
}

/** A block as the events tell of it, with the milestones that it carries and that confirmed it. */
async function lookUp(id, states) {
  const block = await askIfKnown(["blocks", id]);
  if (!block) return null;
  const state = states.get(id) ?? (await ask(["blocks", id, "metadata"]));
  states.set(id, state);
  const { parents, payload, bytes } = block;
  const milestone = state.milestone_index;
  return { id, parents, payload: payload.kind, value: payload.value ?? "0", bytes, carried: payload.index, milestone };
}

/** Parents before the blocks that approve them. */
function inOrder(blocks) {
  const ordered = new Set();
  // They were found from the newest on.
  for (const last of [...blocks.values()].reverse()) {
    const path = [last];
    while (path.length > 0) {
      const block = path.at(-1);
      const missing = block.parents.map((id) => blocks.get(id)).find((parent) => parent && !ordered.has(parent));
      if (missing) path.push(missing);
      else ordered.add(path.pop());
    }
  }
  return ordered;
}
