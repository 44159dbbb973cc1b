"""What is fuzzed, by name."""

from .cores import compare, moving, passing, rewriter
from .views import proto
from .wires import captures, chardev, texts, wire

TARGETS = {
    "proto": (proto, 3),
    "compare": (compare, 6),
    "moving": (moving, 1),
    "rewriter": (rewriter, 4),
    "wire": (wire, 3),
    "chardev": (chardev, 1),
    "captures": (captures, 1),
    "passing": (passing, 1),
    "texts": (texts, 1),
}
"""By name: the function, and its share of the rounds."""
