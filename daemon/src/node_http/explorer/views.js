// One page for each kind of thing: what the node knows of it, with links to what belongs to it.

import { Refusal, address, ask, askIfKnown } from "./ask.js";
import { bytes, count, el, exact, link, short, state, time } from "./page.js";

/** Blocks, outputs and attachments that are listed at once, and characters of data that are shown as text. */
const PAGE = 100;
const TEXT_MAX = 2000;

/** The views by the first word of the address. */
export const VIEWS = { block, transaction, output, address: account, milestone, channel };

/** What a view comes to: its parts, and whether the next milestone may change it. */
function view(kind, title, badge, parts, passing = false) {
  const head = [
    el("p", { className: "kind" }, kind),
    el("div", { className: "title" }, el("h1", { className: "id" }, title), badge),
  ];
  return { title: `${kind} ${short(title)}`, parts: [...head, ...parts.filter(Boolean)], passing };
}

async function block(id) {
  // The beginning of the Tangle has a fate, but no bytes.
  const [shown, fate, children] = await Promise.all([
    askIfKnown(["blocks", id]),
    ask(["blocks", id, "metadata"]),
    approvers(id),
  ]);
  const { measures } = fate;
  const rows = [
    ["State", fateOf(fate)],
    fate.milestone_index === null ? null : ["Confirmed by", milestoneLink(fate.milestone_index)],
    ["Approves", shown ? list(shown.parents.map((parent) => link("block", parent))) : "nothing: it is the beginning"],
    ["Approved by", children],
    ...(shown ? payloadRows(shown.payload) : []),
    shown ? ["Size", bytes(shown.bytes)] : null,
    shown ? ["Nonce", shown.nonce] : null,
    measures ? ["Own weight", `${count(measures.own_weight)}: the work that it proves`] : null,
    measures ? ["Cumulative weight", `${count(measures.cumulative_weight)}, with all that approve it`] : null,
    measures ? ["Score", `${count(measures.score)}, with all that it approves`] : null,
    measures ? ["Height", `${count(measures.height)} steps down to the beginning at most`] : null,
    measures ? ["Depth", `${count(measures.depth)} steps down from a tip at most`] : null,
    shown
      ? ["Bytes", el("a", { href: address(["blocks", id, "raw"]), download: `${id}.block` }, "download; their hash is the id")]
      : null,
  ];
  return view("Block", id, badgeOf(fate, shown?.payload), [table(rows)], fate.status === "pending");
}

async function approvers(id) {
  try {
    const { blocks, more } = await ask(["blocks"], { parent: id, limit: PAGE });
    const links = blocks.map((child) => link("block", child));
    return blocks.length === 0 ? "none yet" : list(more ? [...links, "and more"] : links);
  } catch (error) {
    if (error instanceof Refusal) return error.message;
    throw error;
  }
}

function payloadRows(payload) {
  switch (payload.kind) {
    case "transaction":
      return [["Carries", ["transaction ", link("transaction", payload.id)]], ...transactionRows(payload)];
    case "milestone":
      return [["Carries", milestoneLink(payload.index)], ["Time", time(payload.timestamp_ms)]];
    case "data":
      return [["Carries", "data"], ["Tag", text(payload.tag)], ["Data", text(payload.data)]];
    default:
      return [["Carries", "nothing"]];
  }
}

function transactionRows(shown) {
  const outputs = shown.outputs.map((output) => [
    exact(output.amount), " to ", link("address", output.address), " as ", link("output", output.id, `output ${output.id.split(":")[1]}`),
  ]);
  return [
    ["Action", shown.action.replaceAll("_", " ")],
    shown.channel ? ["Channel", link("channel", shown.channel)] : null,
    ["Spends", shown.inputs.length ? list(shown.inputs.map((id) => link("output", id))) : "no output"],
    ["Makes", outputs.length ? list(outputs) : "no output"],
    ["Sum of the outputs", exact(shown.value)],
    ["Signed by", shown.signed_by.length ? list(shown.signed_by.map(code)) : "nobody: it proves itself"],
  ];
}

async function transaction(id) {
  const fate = await ask(["transactions", id]);
  const [carrier, attachments] = await Promise.all([
    askIfKnown(["blocks", fate.block]),
    ask(["blocks"], { transaction: id, limit: PAGE }),
  ]);
  const rows = [
    ["State", fateOf(fate)],
    fate.milestone_index === null ? null : ["Decided by", milestoneLink(fate.milestone_index)],
    ["Carried by", list([...new Set([fate.block, ...attachments.blocks])].map((found) => link("block", found)))],
    ...(carrier?.payload.kind === "transaction" ? transactionRows(carrier.payload) : []),
    fate.proof
      ? ["Proof", [
          "It leads from the block's bytes to what the coordinators signed as applied.",
          raw("Block", fate.proof.block), raw("Milestone, signed", fate.proof.milestone), raw("Path", fate.proof.path),
        ]]
      : null,
  ];
  return view("Transaction", id, badgeOf(fate, { kind: "transaction" }), [table(rows)], fate.status === "pending");
}

async function output(id) {
  const answer = await ask(["outputs", id]);
  const [made] = id.split(":");
  const shown = answer.output;
  const origin = await askIfKnown(["transactions", made]);
  const rows = [
    ["State", shown ? "unspent" : "not there: it was spent, or never made"],
    ["As of", milestoneLink(answer.milestone_index)],
    shown ? ["Amount", exact(shown.amount)] : null,
    shown ? ["Address", link("address", shown.address)] : null,
    ["Made by", origin ? ["transaction ", link("transaction", made)] : "no transaction that this node knows; the network's first outputs have none"],
    ["Proof", stateProof(answer, shown ? "It proves that the output is in the ledger." : "It proves that the output is not in the ledger.")],
  ];
  return view("Output", id, el("strong", {}, shown ? "unspent" : "not there"), [table(rows)]);
}

async function account(id) {
  const [held, involved] = await Promise.all([
    ask(["addresses", id, "outputs"]),
    ask(["blocks"], { address: id, limit: PAGE }),
  ]);
  const sum = held.outputs.reduce((total, one) => total + BigInt(one.amount), 0n);
  const rows = [
    [held.more ? "Holds at least" : "Holds", exact(sum)],
    ["As of", milestoneLink(held.milestone_index)],
    ["Unspent outputs", `${count(held.outputs.length)}${held.more ? " and more" : ""}`],
  ];
  const outputs = held.outputs.map((one) =>
    el("tr", {}, el("td", {}, link("output", one.id)), el("td", { className: "number" }, exact(one.amount)),
      el("td", {}, raw("Proof", one.proof))),
  );
  const blocks = involved.blocks.map((found) => link("block", found));
  return view("Address", id, null, [
    table(rows),
    outputs.length ? el("h2", {}, "Unspent outputs") : null,
    outputs.length ? grid(["Output", "Amount", "Proof"], outputs) : null,
    el("h2", {}, "Blocks that spend from it or pay to it"),
    blocks.length ? list(involved.more ? [...blocks, "and more"] : blocks) : el("p", {}, "none that this node holds"),
  ]);
}

async function milestone(asked, page = "0") {
  const skip = /^\d{1,9}$/.test(page) ? Number(page) : 0;
  const shown = await ask(["milestones", asked]);
  const included = await ask(["milestones", String(shown.index), "blocks"], { skip, limit: PAGE });
  const rows = [
    ["Id", code(shown.id)],
    ["Carried by", shown.block ? link("block", shown.block) : "a block that is not held"],
    ["Time", time(shown.timestamp_ms)],
    ["Previous", [shown.index > 1 ? milestoneLink(shown.index - 1) : "the beginning", " ", code(shown.previous)]],
    ["Approves", list(shown.parents.map((parent) => link("block", parent)))],
    ["Signed by", list(shown.signed_by.map(code))],
    ["Root of the ledger's state", code(shown.state_root)],
    ["Root of the confirmed blocks", code(shown.included_root)],
    ["Root of the applied blocks", code(shown.applied_root)],
    ["Root of the changed channels", code(shown.channels_root)],
    ["Proof", ["The signatures are in the bytes.", raw("Milestone, signed", shown.raw)]],
  ];
  const blocks = included.blocks.map((one, at) =>
    el("tr", {}, el("td", { className: "number" }, count(skip + at + 1)), el("td", {}, link("block", one.id)), el("td", {}, fateOf(one))),
  );
  const to = (from, words) => el("a", { href: `#/milestone/${shown.index}/${from}` }, words);
  return view("Milestone", String(shown.index), null, [
    el("p", { className: "pages" },
      shown.index > 1 ? milestoneLink(shown.index - 1, "← previous") : null, milestoneLink(shown.index + 1, "next →")),
    table(rows),
    el("h2", {}, "Blocks that it confirmed, in the order of the ledger"),
    blocks.length ? grid(["No.", "Block", "State"], blocks) : el("p", {}, "none"),
    el("p", { className: "pages" },
      skip > 0 ? to(Math.max(0, skip - PAGE), "← earlier ones") : null,
      included.more ? to(skip + PAGE, "later ones →") : null),
  ]);
}

async function channel(id) {
  const answer = await ask(["channels", id]);
  const shown = answer.channel;
  const proof = ["Proof", stateProof(answer, shown ? "It proves this record." : "It proves that the ledger has no such channel.")];
  if (!shown) {
    const rows = [["State", "not there: it was never opened, or is closed"], ["As of", milestoneLink(answer.milestone_index)], proof];
    return view("Channel", id, el("strong", {}, "not there"), [table(rows)]);
  }
  const parties = shown.parties.map((party) => ({ ...party, locked: BigInt(party.deposit) - BigInt(party.withdrawn) }));
  const total = parties.reduce((sum, party) => sum + party.locked, 0n);
  const rows = [
    ["State", shown.phase],
    ["As of", milestoneLink(answer.milestone_index)],
    ["Holds", exact(total)],
    ["Contest window", `${count(shown.contest_window_milestones)} milestones`],
    shown.deadline_milestone === null ? null : ["Claims are taken until", `milestone ${count(shown.deadline_milestone)}`],
    proof,
  ];
  const sides = parties.map((party, at) => {
    const balance = party.locked - BigInt(party.paid) + BigInt(parties[1 - at]?.paid ?? 0);
    const side = [
      ["Key", code(party.key)],
      ["Payout address", link("address", party.payout)],
      ["Deposit", exact(party.deposit)],
      ["Taken out again", exact(party.withdrawn)],
      ["Paid to the other, as far as the ledger was shown", exact(party.paid)],
      ["Balance by that", balance < 0n ? "0i" : exact(balance)],
    ];
    return [el("h2", {}, at === 0 ? "The party that opened it" : "The other party"), table(side)];
  });
  return view("Channel", id, el("strong", {}, shown.phase), [table(rows), ...sides.flat()]);
}

function fateOf({ status, reason }) {
  const words = { pending: "no milestone has confirmed it yet", included: "confirmed; it carries no transaction", applied: "applied: it changed the ledger" };
  return state(status, status === "rejected" ? `conflicting: ${reason}` : (words[status] ?? status));
}

function badgeOf({ status }, payload) {
  return payload?.kind === "milestone" ? state("milestone") : state(status);
}

function milestoneLink(index, words = `milestone ${count(index)}`) {
  return el("a", { href: `#/milestone/${index}` }, words);
}

function table(rows) {
  const parts = rows.filter(Boolean).flatMap(([name, content]) => [el("dt", {}, name), el("dd", {}, content)]);
  return el("dl", {}, parts);
}

function grid(names, rows) {
  const heads = names.map((name) => el("th", { scope: "col" }, name));
  return el("div", { className: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, rows)));
}

function list(items) {
  return el("ul", {}, items.map((item) => el("li", {}, item)));
}

function code(id) {
  return el("span", { className: "id" }, id);
}

function stateProof({ proof }, words) {
  return [`${words} It leads to the state root of that milestone.`, raw("Proof", proof)];
}

/** Bytes in hexadecimal, to be opened. */
function raw(name, hex) {
  return el("details", {}, el("summary", {}, `${name}, ${bytes(hex.length / 2)}`), el("pre", {}, hex));
}

/** Bytes as text where they are text, and as they are. */
function text(hex) {
  const pairs = hex.slice(0, TEXT_MAX * 2).match(/../g) ?? [];
  const array = Uint8Array.from(pairs, (pair) => parseInt(pair, 16));
  const read = new TextDecoder().decode(array);
  const readable = read !== "" && !/[\u0000-\u0008\u000e-\u001f\u007f\ufffd]/.test(read);
  return [readable ? el("div", {}, `“${read}”${hex.length > TEXT_MAX * 2 ? " …" : ""}`) : null, raw("Bytes", hex)];
}
