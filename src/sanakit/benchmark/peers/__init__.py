"""Other libraries that run the same networks from our weights, timed beside ours: a peer is a file and a row here.

The libraries are optional and imported when a peer runs, nowhere else.
"""

from sanakit.benchmark.engines import Peer
from sanakit.benchmark.peers import diffusers, openvino

__all__ = ["PEERS"]

PEERS: dict[str, Peer] = {peer.name: peer for peer in (diffusers.PEER, openvino.PEER)}
"""Peers by the name that `EngineSpec.peer` gives."""
