"""Write the reference pages, and remove those of methods that are no longer registered."""

from . import DOCS, pages, stale

found = pages()
for path in stale(found):
    path.unlink()
for name, text in found.items():
    (DOCS / name).parent.mkdir(parents=True, exist_ok=True)
    (DOCS / name).write_text(text, encoding="utf-8")
