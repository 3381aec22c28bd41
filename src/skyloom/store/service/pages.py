"""The page for people at the root of a service."""

from __future__ import annotations

from html import escape
from urllib.parse import urlencode

from skyloom._version import __version__
from skyloom.store.query import Store
from skyloom.store.service.obscore import Places
from skyloom.store.service.sia2 import example_values

__all__ = ["root_page"]


def root_page(store: Store, places: Places) -> bytes:
    """Return what the service is, what it holds, and how to ask it, as HTML."""
    base = places.base
    example = example_values(store) or {"ra": 10.0, "dec": -5.0, "obs_id": "NAME"}
    ra, dec, identifier = example["ra"], example["dec"], places.identifier(example["obs_id"])
    addresses = {
        "images around a place": f"{base}/sia2/query?" + urlencode({"POS": f"CIRCLE {ra} {dec} 0.1"}),
        "the columns of such a response": f"{base}/sia2/query?MAXREC=0",
        "spectra": f"{base}/sia2/query?" + urlencode({"DPTYPE": "spectrum", "RESPONSEFORMAT": "csv"}),
        "a cut-out (FITS: science, variance, mask)": f"{base}/soda/sync?"
        + urlencode({"ID": identifier, "CIRCLE": f"{ra} {dec} 0.003"}),
        "the whole of it, coarser": f"{base}/soda/sync?" + urlencode({"ID": identifier, "LEVEL": 2}),
        "what there is of it": f"{base}/datalink/links?" + urlencode({"ID": identifier}),
        "what the service can do": f"{base}/capabilities",
    }
    items = "\n".join(
        f'<li>{escape(what)}:<br><a href="{escape(address, quote=True)}"><code>{escape(address)}</code></a></li>'
        for what, address in addresses.items()
    )
    snippet = f"""import pyvo
from astropy.io import fits

service = pyvo.dal.SIA2Service("{base}/sia2")
found = service.search(pos=({ra}, {dec}, 0.1))
record = found[0]
part = fits.open(record.processed(circle=({ra}, {dec}, 0.003)))
part["SCI"].data, part["VAR"].data, part["MASK"].data"""
    counts = repr(store).rpartition(": ")[2].rstrip(">")
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>A store of observations</title>
<style>body {{ font: 16px/1.5 sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }}
code, pre {{ font-size: 13px; overflow-wrap: anywhere; }} pre {{ background: #f3f3f3; padding: 1rem; }}</style></head>
<body><h1>A store of observations</h1>
<p>{len(store)} observations ({escape(counts)}), found by SIA 2.0 and cut out by SODA 1.0, in the words of ObsCore 1.1.
Every cut-out comes with its variance, its mask and its coordinates.</p>
<h2>Addresses</h2><ul>
{items}
</ul><h2>From Python</h2><pre>{escape(snippet)}</pre>
<p>Skyloom {__version__}</p></body></html>
""".encode()
