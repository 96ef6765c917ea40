#!/usr/bin/env python3
"""Rebuilds every signed byte, hash, signature and message of vectors/*.json from the fields alone.

Written from docs/protocol.md, not from the Rust code: it is the proof that the document is enough.

    pip install -r requirements.txt
    python3 check.py
"""

import hashlib
import json
import pathlib
import struct
import sys

import bech32
from nacl.signing import SigningKey, VerifyKey

HERE = pathlib.Path(__file__).parent
checks = 0


def load(name):
    return json.loads((HERE / name).read_text())


def same(what, got, wanted):
    global checks
    checks += 1
    if got != wanted:
        sys.exit(f"{what}: rebuilt {got}, the vector says {wanted}")


def tag(name):
    return name.encode().ljust(16, b"\0")


def sha3(*parts):
    return hashlib.sha3_256(b"".join(parts)).digest()


def u8(n):
    return struct.pack("<B", int(n))


def u16(n):
    return struct.pack("<H", int(n))


def u32(n):
    return struct.pack("<I", int(n))


def u64(n):
    return struct.pack("<Q", int(n))


def side(name):
    return u8("AB".index(name))


hx = bytes.fromhex


def check_signature(what, secret, digest, signature):
    """Ed25519 is deterministic: the same key and hash must give the very same signature."""
    key = SigningKey(hx(secret))
    same(f"{what}: signature", key.sign(digest).signature.hex(), signature)


# --- the encoding of what is sent: bincode, fixed-width little-endian integers -------------------


def vec(items):
    return u64(len(items)) + b"".join(items)


def byte_vec(data):
    return u64(len(data)) + data


def variant(n):
    return u32(n)


def option(encoded):
    return b"\0" if encoded is None else b"\1" + encoded


def enum_side(name):
    return variant("AB".index(name))


# --- layouts ---------------------------------------------------------------------------------


def lane_fields(s):
    return b"".join([
        hx(s["channel"]), side(s["payer"]), u64(s["seq"]), u64(s["cumulative"]), hx(s["history"]),
        hx(s["tick_anchor"]), u64(s["tick_unit"]), u32(s["tick_max"]), hx(s["locks_root"]),
    ])


def lane_encoded(s):
    return b"".join([
        hx(s["channel"]), enum_side(s["payer"]), u64(s["seq"]), u64(s["cumulative"]), hx(s["history"]),
        hx(s["tick_anchor"]), u64(s["tick_unit"]), u32(s["tick_max"]), hx(s["locks_root"]),
    ])


def tick_fields(proof):
    """A tick proof, the same in both forms."""
    return u32(proof["index"]) + hx(proof["preimage"])


def terms_fields(s):
    return hx(s["tick_anchor"]) + u64(s["tick_unit"]) + u32(s["tick_max"])


def ticks_fields(proof):
    return b"\0" if proof is None else b"\1" + tick_fields(proof)


def check_ticks(what, s, proof):
    """The preimage leads to the anchor that was signed."""
    at = hx(proof["preimage"])
    for _ in range(int(proof["index"])):
        at = sha3(tag("flash/tick"), at)
    same(f"{what}: anchor", at.hex(), s["tick_anchor"])


def claim_fields(s):
    return lane_fields(s) + ticks_fields(s["ticks"])


def claim_encoded(s):
    return lane_encoded(s) + ticks_fields(s["ticks"])


def output_fields(o):
    return hx(o["address"]) + u64(o["amount"])


def output_id_fields(text):
    transaction, index = text.split(":")
    return hx(transaction) + u16(index)


def party_fields(p):
    return hx(p["key"]) + hx(p["payout"]) + u64(p["deposit"])


def close_fields(a):
    return b"".join([
        hx(a["channel"]), u64(a["final_seq_a"]), u64(a["final_seq_b"]), u64(a["payout_a"]), u64(a["payout_b"]),
        u64(a["expiry_milestone"]),
    ])


def top_up_fields(a, encoded_side):
    return hx(a["channel"]) + encoded_side(a["side"]) + u64(a["amount"]) + u64(a["expiry_milestone"])


def withdraw_fields(a, encoded_side):
    return (hx(a["channel"]) + encoded_side(a["side"]) + u64(a["amount"]) + u64(a["total"])
            + u64(a["expiry_milestone"]))


KINDS = ["transfer", "open", "cooperative_close", "unilateral_close", "claim", "top_up", "withdraw"]


def action_fields(a):
    kind = u8(KINDS.index(a["kind"]))
    if a["kind"] == "open":
        return (kind + party_fields(a["party_a"]) + party_fields(a["party_b"])
                + u32(a["contest_window_milestones"]) + u64(a["expiry_milestone"]))
    if a["kind"] == "cooperative_close":
        return kind + close_fields(a)
    if a["kind"] == "unilateral_close":
        balance = a["balance"]
        tail = b"\0" if balance is None else b"\1" + claim_fields(balance)
        return kind + hx(a["channel"]) + side(a["closer"]) + tail
    if a["kind"] == "claim":
        return kind + claim_fields(a["balance"])
    if a["kind"] == "top_up":
        return kind + top_up_fields(a, side)
    if a["kind"] == "withdraw":
        return kind + withdraw_fields(a, side)
    return kind


def action_encoded(a):
    kind = variant(KINDS.index(a["kind"]))
    if a["kind"] == "unilateral_close":
        balance = a["balance"]
        return (kind + hx(a["channel"]) + enum_side(a["closer"])
                + option(None if balance is None else claim_encoded(balance)))
    if a["kind"] == "claim":
        return kind + claim_encoded(a["balance"])
    if a["kind"] == "top_up":
        return kind + top_up_fields(a, enum_side)
    if a["kind"] == "withdraw":
        return kind + withdraw_fields(a, enum_side)
    return kind + action_fields(a)[1:]  # the same fields in both forms


# --- the files ---------------------------------------------------------------------------------


def amounts():
    units = {"i": 1, "Ki": 10**3, "Mi": 10**6, "Gi": 10**9, "Ti": 10**12, "Pi": 10**15}
    for case in load("amounts.json")["good"]:
        digits = case["text"].rstrip("iKMGTP")
        whole, _, fraction = digits.partition(".")
        base = units[case["text"][len(digits):] or "i"]
        value = int(whole) * base + (int(fraction) * base // 10 ** len(fraction) if fraction else 0)
        same(f"amount {case['text']}", str(value), case["units"])


def addresses():
    for case in load("addresses.json"):
        public = bytes(SigningKey(hx(case["secret"])).verify_key)
        same("public key", public.hex(), case["public"])
        address = sha3(tag("flash/address"), public)
        same("address", address.hex(), case["address_bytes"])
        words = bech32.convertbits(b"\0" + address, 8, 5)
        same("address text", bech32.bech32_encode("flash", words), case["address"])


def lanes():
    file = load("lanes.json")
    history, seq, cumulative = bytes(32), 0, 0

    def signing_hash(state):
        return sha3(tag("flash/lane"), hx(file["network"]), lane_fields(state))

    for step in file["steps"]:
        packed = b""
        for payment in step["payments"]:
            reference = payment["reference"].encode()
            packed += u64(payment["amount"]) + u8(len(reference)) + reference
            cumulative += int(payment["amount"])
        same("packed payments", packed.hex(), step["packed"])
        history = sha3(tag("flash/history"), history, packed)
        seq += 1
        same("history", history.hex(), step["state"]["history"])
        same("seq", str(seq), step["state"]["seq"])
        same("cumulative", str(cumulative), step["state"]["cumulative"])
    for step in file["steps"] + [file["all_fields"]]:
        digest = signing_hash(step["state"])
        same("lane hash", digest.hex(), step["signing_hash"])
        check_signature("lane", file["secret"], digest, step["signature"])


def transactions():
    for case in load("transactions.json"):
        what = case["action"]["kind"]
        spent = [output_fields(o) for o in case["spent"]]
        commitment = sha3(tag("flash/inputs"), u16(len(spent)), *spent)
        shown = case["action"].get("balance")
        if shown and shown["ticks"]:
            check_ticks(what, shown, shown["ticks"])
        same(f"{what}: commitment", commitment.hex(), case["inputs_commitment"])
        inputs = [output_id_fields(i) for i in case["inputs"]]
        outputs = [output_fields(o) for o in case["outputs"]]
        digest = sha3(tag("flash/tx"), hx(case["network"]), u16(len(inputs)), *inputs, commitment,
                      u16(len(outputs)), *outputs, action_fields(case["action"]))
        same(f"{what}: id", digest.hex(), case["id"])
        if what == "open":
            same("channel id", sha3(tag("flash/channel"), digest).hex(), case["channel"])
        check_signature(what, case["secret"], digest, case["signature"])
        unlock = bytes(SigningKey(hx(case["secret"])).verify_key) + hx(case["signature"])
        encoded = (hx(case["network"]) + vec(inputs) + commitment + vec(outputs)
                   + action_encoded(case["action"]) + vec([unlock]))
        same(f"{what}: bytes", encoded.hex(), case["bytes"])


def state():
    file = load("state.json")
    output, channel = file["output"], file["channel"]
    same("output key", sha3(tag("flash/state-key"), u8(0), output_id_fields(output["id"])).hex(), output["key"])
    same("output value", sha3(tag("flash/state-val"), u8(0), output_fields(output["output"])).hex(),
         output["value_hash"])
    same("channel key", sha3(tag("flash/state-key"), u8(1), hx(channel["id"])).hex(), channel["key"])
    payout = sha3(tag("flash/payout"), hx(channel["id"])).hex()
    same("payout of A", f"{payout}:0", channel["payout_a"])
    same("payout of B", f"{payout}:1", channel["payout_b"])

    def value(phase):
        parties = [party_fields(p) + u64(p["withdrawn"]) + u64(p["seq"]) + u64(p["cumulative"])
                   for p in (channel["party_a"], channel["party_b"])]
        return sha3(tag("flash/state-val"), u8(1), *parties, u32(channel["contest_window_milestones"]), phase)

    same("open channel", value(u8(0) + u8(0) + u64(0)).hex(), channel["open_value_hash"])
    closing = channel["closing"]
    same("closing channel", value(u8(1) + side(closing["closer"]) + u64(closing["deadline"])).hex(),
         channel["closing_value_hash"])


def blocks():
    for case in load("blocks.json"):
        data = hx(case["bytes"])
        same("block id", sha3(tag("flash/block"), data).hex(), case["id"])
        same("nonce", str(struct.unpack("<Q", data[-8:])[0]), case["nonce"])
        body = sha3(tag("flash/work"), data[:-8])
        work = int.from_bytes(sha3(tag("flash/work"), body, u64(case["nonce"])), "big")
        same("work", 256 - work.bit_length(), case["work_bits"])


def milestones():
    file = load("milestones.json")
    network, m = file["network"], file["milestone"]
    name = network["name"].encode()
    network_id = sha3(
        tag("flash/network"), u16(len(name)), name,
        u16(len(network["coordinators"])), *map(hx, network["coordinators"]),
        u8(network["threshold"]), u8(network["pow_bits"]), u64(network["output_min"]),
        u64(network["milestone_interval_ms"]), u64(network["genesis_ms"]),
        u16(len(file["genesis_bytes"])), *map(output_fields, file["genesis_bytes"]),
    )
    same("network id", network_id.hex(), file["network_id"])
    roots = [hx(m[name]) for name in ("included_root", "applied_root", "channels_root", "state_root")]
    head = network_id + u64(m["index"]) + u64(m["timestamp_ms"]) + hx(m["previous"])
    parents = list(map(hx, m["parents"]))
    keys, threshold = list(map(hx, m["next"]["keys"])), u8(m["next"]["threshold"])
    next_set = u8(1) + u16(len(keys)) + b"".join(keys) + threshold
    digest = sha3(tag("flash/milestone"), head, u16(len(parents)), *parents, *roots, next_set)
    same("milestone id", digest.hex(), m["id"])
    signatures = []
    for s in m["signatures"]:
        VerifyKey(hx(s["coordinator"])).verify(digest, hx(s["signature"]))
        signatures.append(hx(s["coordinator"]) + hx(s["signature"]))
    same("milestone bytes", (head + vec(parents) + b"".join(roots) + option(vec(keys) + threshold) + vec(signatures)).hex(), m["bytes"])


def messages():
    file = load("messages.json")
    network, channel, state = hx(file["network"]), hx(file["channel"]), file["state"]
    balance = lane_encoded(state) + hx(file["balance_signature"])
    packed = u64(7) + u8(1) + b"r"
    close = hx(file["close"]["channel"]) + close_fields(file["close"])[32:]
    close_signature = hx(file["close_signature"])
    stakes = u64(10) + u64(3) + u64(20) + u64(0)
    # Ticks: a balance with a chain in use, some of it revealed, and the update that folds them.
    ticking, folded, proof = file["ticks"]["terms"], file["ticks"]["folded"], file["ticks"]["proof"]
    check_ticks("tick", ticking, proof)
    history = sha3(tag("flash/ticks"), hx(ticking["history"]), hx(ticking["tick_anchor"]),
                   u64(ticking["tick_unit"]), tick_fields(proof))
    folded_payments = u64(9) + u8(0)
    history = sha3(tag("flash/history"), history, folded_payments)
    same("folded history", history.hex(), folded["history"])
    cumulative = int(ticking["cumulative"]) + proof["index"] * int(ticking["tick_unit"]) + 9
    same("folded total", str(cumulative), folded["cumulative"])
    key, other = SigningKey(bytes([1]) * 32), SigningKey(bytes([2]) * 32)
    folded_signature = key.sign(sha3(tag("flash/lane"), network, lane_fields(folded))).signature
    # The payee's signature is over the same fields under another tag.
    receipt_hash = sha3(tag("flash/receipt"), network, lane_fields(state))
    same("receipt hash", receipt_hash.hex(), file["receipt_hash"])
    receipt = other.sign(receipt_hash).signature
    same("receipt signature", receipt.hex(), file["receipt_signature"])
    withdraw = withdraw_fields(file["withdraw"], enum_side)
    for name, encoded in {
        "start_control": variant(0) + u16(1) + u64(0) + network,
        "start_channel": variant(2) + channel,
        "reestablish": variant(0) + option(balance) + option(None) + option(None) + option(tick_fields(proof))
        + stakes,
        "update": variant(1) + u64(state["seq"]) + u64(state["cumulative"]) + byte_vec(packed) + option(None)
        + hx(file["balance_signature"]),
        "update_folding": variant(1) + u64(folded["seq"]) + u64(folded["cumulative"]) + byte_vec(folded_payments)
        + option(option(tick_fields(proof)) + terms_fields(folded)) + folded_signature,
        "ack": variant(2) + u64(1),
        "balance": variant(3) + balance,
        "paused": variant(4) + u64(1) + variant(1),
        "close_request": variant(5),
        "close_signed": variant(6) + close + close_signature,
        "close_complete": variant(7) + close_signature,
        "refuse": variant(8) + variant(3) + byte_vec(b"no"),
        "tick": variant(9) + u64(1) + tick_fields(proof),
        "tick_ack": variant(10) + u64(1) + u32(proof["index"]),
        "stakes": variant(11) + stakes,
        "withdraw_signed": variant(12) + withdraw + close_signature,
        "withdraw_complete": variant(13) + withdraw + close_signature,
        "receipt_request": variant(14) + u64(1),
        "receipt": variant(15) + u64(1) + receipt,
    }.items():
        same(f"message {name}", encoded.hex(), file[name])


def towers():
    file = load("towers.json")
    network, state, ticks = hx(file["network"]), file["state"], file["ticks"]
    tick = u32(ticks["index"]) + hx(ticks["preimage"])
    signature, permit, receipt = hx(file["balance_signature"]), hx(file["permit"]), hx(file["receipt"])
    channel, payer = hx(state["channel"]), state["payer"]
    named = sha3(tag("flash/tower-for"), network, channel, side(payer), hx(file["client"]))
    same("a client's name", named.hex(), file["client_hash"])
    check_signature("a client's permit", file["payee_secret"], named, file["permit"])
    lane = sha3(tag("flash/lane"), network, lane_fields(state))
    held = sha3(tag("flash/tower"), network, lane, u32(ticks["index"]))
    same("a tower's receipt", held.hex(), file["receipt_hash"])
    check_signature("a tower's receipt", file["tower_secret"], held, file["receipt"])
    balance = lane_encoded(state) + signature
    newest = balance + option(tick)
    for name, encoded in {
        "keep": variant(0) + newest + permit,
        "show": variant(1) + channel + enum_side(payer) + permit,
        "holds": variant(0) + receipt,
        "newer": variant(1) + newest,
        "shown": variant(2) + option(balance + option(None)),
        "shown_nothing": variant(2) + option(None),
        "refused": variant(3) + variant(3) + byte_vec(b"no"),
    }.items():
        same(f"tower's message {name}", encoded.hex(), file[name])


for part in (amounts, addresses, lanes, transactions, state, blocks, milestones, messages, towers):
    part()
print(f"{checks} values rebuilt from the vectors' fields, all equal")
