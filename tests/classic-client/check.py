"""Makes the 14 classic calls on a node with PyOTA 2.1.0, a client library of 2019.

Usage: check.py URL, with the URL of a development network's node. Exits with 0 if every call did what it should.
"""

import struct
import sys
import threading
import time
from types import SimpleNamespace

import pkg_resources

# PyOTA looks its version up in a way that insists on a hash library that is not installed under that name any more.
pkg_resources.require = lambda *names: [SimpleNamespace(version="2.1.0")]

from iota import BadApiResponse, Iota, Tag, TransactionHash, TransactionTrytes, TryteString  # noqa: E402

ALPHABET = "9ABCDEFGHIJKLMNOPQRSTUVWXYZ"
KEY = "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c"


def b1t6(data):
    """Bytes as trytes by TIP-5, written apart from the node's own."""
    text = ""
    for byte in data:
        value = byte - 256 if byte > 127 else byte
        low = (value + 13) % 27 - 13
        text += ALPHABET[low % 27] + ALPHABET[(value - low) // 27 % 27]
    return text


def data_block(tag, data):
    """A block with data, of which only the payload counts: `docs/protocol.md`, "Block"."""
    payload = struct.pack("<IQ", 3, len(tag)) + tag + struct.pack("<Q", len(data)) + data
    block = struct.pack("<BQ", 1, 1) + bytes(32) + payload + struct.pack("<Q", 0)
    return TransactionTrytes(b1t6(block))


def main(url):
    api = Iota(url)
    info = api.get_node_info()
    assert info["appName"] == "Flash", info
    assert isinstance(info["latestMilestone"], TransactionHash)

    uri = "udp://%s@192.0.2.1:14265" % KEY
    assert api.get_neighbors()["neighbors"] == []
    for call in (api.add_neighbors, api.remove_neighbors):
        try:
            call([uri])
        except BadApiResponse as error:
            assert "without neighbours" in str(error), error

    approve = api.get_transactions_to_approve(depth=3)
    templates = [data_block(b"METER", b"41 Wh"), data_block(b"METER", b"42 Wh")]
    attached = api.attach_to_tangle(
        trunk_transaction=approve["trunkTransaction"],
        branch_transaction=approve["branchTransaction"],
        trytes=templates,
        min_weight_magnitude=14,
    )["trytes"]
    assert len(attached) == 2 and all(len(block) == 2673 for block in attached)
    api.broadcast_transactions(attached)
    api.store_transactions(attached)

    tag = Tag(TryteString(b1t6(b"METER")))
    found = api.find_transactions(tags=[tag])["hashes"]
    assert len(found) >= 2, found
    trytes = api.get_trytes(found)["trytes"]
    assert set(map(str, attached)) <= set(map(str, trytes))
    children = api.find_transactions(approvees=[approve["trunkTransaction"]])["hashes"]
    assert set(children) & set(found), "the first block approves the trunk"
    assert api.get_tips()["hashes"]

    deadline = time.time() + 30
    while True:
        newest = api.get_node_info()["latestMilestone"]
        states = api.get_inclusion_states(transactions=found, tips=[newest])["states"]
        if all(states):
            break
        assert time.time() < deadline, "no milestone confirmed the blocks"
        time.sleep(0.1)
    assert api.get_latest_inclusion(found)["states"] == {block: True for block in found}
    # What send_trytes does is what every wallet of that time did.
    assert len(api.send_trytes(templates, depth=3, min_weight_magnitude=9)["trytes"]) == 2

    balances = api.get_balances(addresses=["9" * 81], threshold=100)
    assert balances["balances"] == [0] and balances["milestoneIndex"] > 0, balances

    outcome = []

    def attach():
        try:
            Iota(url).attach_to_tangle(
                trunk_transaction=approve["trunkTransaction"],
                branch_transaction=approve["branchTransaction"],
                trytes=templates[:1],
                min_weight_magnitude=60,
            )
        except BadApiResponse as error:
            outcome.append(str(error))

    working = threading.Thread(target=attach)
    working.start()
    began = time.time()
    while working.is_alive():
        api.interrupt_attaching_to_tangle()
        working.join(timeout=0.1)
        assert time.time() < began + 20, "the proof of work goes on"
    assert "interrupted" in outcome[0], outcome
    print("all 14 calls of PyOTA 2.1.0 were answered as they should be")


if __name__ == "__main__":
    main(sys.argv[1])
