"""Others who run the same networks from our weights, to be timed beside ours. A peer is a file here and a row below.

Their libraries are optional and imported when a peer runs, nowhere else.
"""

from sanakit.benchmark.peers import diffusers, openvino
from sanakit.benchmark.peers.peer import Peer

__all__ = ["PEERS", "Peer"]

PEERS: dict[str, Peer] = {peer.name: peer for peer in (diffusers.PEER, openvino.PEER)}
"""By the name that `EngineSpec.peer` gives."""
