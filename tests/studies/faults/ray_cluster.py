"""A Ray cluster on 127.0.0.1 with several nodes, controlled by lines on standard input.

It prints its address. Each line, `add` or `remove`, is answered when it is done. It ends with its
input.
"""

from __future__ import annotations

import sys
from typing import Any

from ray.cluster_utils import Cluster

node: dict[str, Any] = {"num_cpus": 1, "node_ip_address": "127.0.0.1"}
cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
print(cluster.address, flush=True)
nodes = []
for line in sys.stdin:
    if line == "add\n":
        nodes.append(cluster.add_node(**node))
    else:
        cluster.remove_node(nodes.pop())
    print(line, end="", flush=True)
cluster.shutdown()
