// The explorer: which view the address asks for, and the search.

import { Refusal, ask, askIfKnown } from "./ask.js";
import { feed, painter, start } from "./live.js";
import { el } from "./page.js";
import { VIEWS } from "./views.js";

const part = (id) => document.getElementById(id);

/** Counts the views that were asked for, so that a slow answer does not replace a newer view. */
let turn = 0;
/** The view that the next milestone may change. */
let passing = false;

async function route() {
  // What leads to a place within the page is no view.
  if (location.hash !== "" && !location.hash.startsWith("#/")) return;
  turn += 1;
  passing = false;
  const [kind = "", ...words] = location.hash.replace(/^#\/?/, "").split("/").map(plain);
  const live = kind === "";
  part("live").hidden = !live;
  part("view").hidden = live;
  if (live) {
    document.title = "Flash explorer";
    painter.touch();
    return;
  }
  part("view").replaceChildren(el("p", { className: "note" }, "Asking the node…"));
  window.scrollTo(0, 0);
  await show(kind, words);
}

async function show(kind, words) {
  const mine = turn;
  let shown;
  try {
    if (kind === "search") return await search(words[0] ?? "");
    if (!Object.hasOwn(VIEWS, kind) || !words[0]) throw new Refusal("not_found", "There is no such page.", "search for an id");
    shown = await VIEWS[kind](...words.slice(0, 2));
  } catch (error) {
    shown = failure(error);
  }
  if (mine !== turn) return;
  document.title = `${shown.title} · Flash explorer`;
  passing = shown.passing === true;
  part("view").replaceChildren(...shown.parts);
}

function failure(error) {
  if (!(error instanceof Refusal)) throw error;
  const message = el("p", {}, el("strong", {}, sentence(error.message)));
  const hint = error.hint ? el("p", { className: "soft" }, sentence(error.hint)) : null;
  const note = el("div", { className: "note bad", role: "alert" }, message, hint);
  return { title: "Not shown", parts: [el("h1", {}, "This cannot be shown"), note, el("p", {}, el("a", { href: "#/" }, "To the live Tangle"))] };
}

/** Finds out what an id is the id of, and goes there. */
async function search(text) {
  const mine = turn;
  const kind = await kindOf(text);
  if (mine !== turn) return;
  if (!kind) {
    throw new Refusal("not_found", `“${text.slice(0, 80)}” is no block, transaction, output, address, channel or milestone that this node knows`,
      "ids have 64 hexadecimal digits, outputs a colon and a number after them, addresses begin with flash1, and milestones are numbers");
  }
  location.replace(`#/${kind}/${encodeURIComponent(text)}`);
}

async function kindOf(text) {
  if (/^(\d{1,20}|latest)$/.test(text)) return "milestone";
  if (/^flash1[a-z0-9]+$/.test(text)) return "address";
  if (/^[0-9a-f]{64}:\d{1,5}$/.test(text)) return "output";
  if (!/^[0-9a-f]{64}$/.test(text)) return null;
  if (await askIfKnown(["blocks", text, "metadata"])) return "block";
  if (await askIfKnown(["transactions", text])) return "transaction";
  return (await ask(["channels", text])).channel ? "channel" : null;
}

function plain(word) {
  try {
    return decodeURIComponent(word);
  } catch {
    return word;
  }
}

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

part("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = part("query").value.trim().toLowerCase();
  if (text === "") return;
  const wanted = `#/search/${encodeURIComponent(text)}`;
  if (location.hash === wanted) route();
  else location.hash = wanted;
});
window.addEventListener("hashchange", () => {
  route();
  part("main").focus({ preventScroll: true });
});
feed.addEventListener("milestone", () => {
  // Who reads or has chosen something in it is not disturbed.
  if (!passing || part("view").querySelector("details[open]") || part("view").contains(document.activeElement)) return;
  const [kind, ...words] = location.hash.replace(/^#\/?/, "").split("/").map(plain);
  show(kind, words);
});
start();
route();
