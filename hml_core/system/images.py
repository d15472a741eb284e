"""What image files raise when they cannot be read. Imported by every worker, so nothing heavy here."""

from __future__ import annotations

from PIL import Image

UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
