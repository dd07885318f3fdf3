"""Floor 6: many requests to a folder of pictures, by one process or several; what is there is not drawn again.

items      a file of requests, a line each       run        what is missing, drawn; what failed, written down
draw       one item to a PNG, in any process     workers    who draws: this process, several, or a Ray Data job (`ray`)
"""

from sanakit.batch.draw import Drawer, Drawn, Loading
from sanakit.batch.items import Item, read_items
from sanakit.batch.run import BatchReport, run_batch

__all__ = ["BatchReport", "Drawer", "Drawn", "Item", "Loading", "read_items", "run_batch"]
