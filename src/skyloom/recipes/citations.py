"""What to cite: Skyloom, and the papers of the methods that a run has used."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from skyloom._version import __version__
from skyloom.report.model import Citation

__all__ = ["PAPERS", "SOFTWARE", "citations"]

SOFTWARE = {
    "title": "Skyloom: galaxy images and spectra woven into maps with errors you can trust",
    "author": "The Skyloom developers",
    "year": "2026",
}
"""The same as in CITATION.cff."""


class Paper(NamedTuple):
    """An article: the names of its authors as BibTeX has them, and where it is."""

    authors: str
    title: str
    journal: str
    year: int
    volume: str
    page: str
    doi: str

    def cite(self, key: str, used_for: str) -> Citation:
        """Return it as text and as BibTeX."""
        names = [name.partition(",")[0].strip("{}") for name in self.authors.split(" and ")]
        if names[-1] == "others":
            who = f"{names[0]} et al."
        else:
            who = f"{names[0]} et al." if len(names) > 3 else " & ".join((", ".join(names[:-1]), names[-1]))
        text = f"{who.removeprefix(' & ')} {self.year}, {self.journal} {self.volume}, {self.page}"
        fields = {
            "author": self.authors,
            "title": f"{{{self.title}}}",
            "journal": self.journal,
            "year": str(self.year),
            "volume": self.volume,
            "pages": self.page,
            "doi": self.doi,
        }
        return Citation(used_for, text, self.doi, _bibtex("article", key, fields))


def _bibtex(kind: str, key: str, fields: dict[str, str]) -> str:
    lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items() if value)
    return f"@{kind}{{{key},\n{lines}\n}}"


PAPERS = {
    "astropy2022": Paper(
        "{Astropy Collaboration} and Price-Whelan, A. M. and others",
        "The Astropy Project: Sustaining and Growing a Community-oriented Open-source Project and the Latest Major"
        " Release (v5.0) of the Core Package",
        "ApJ", 2022, "935", "167", "10.3847/1538-4357/ac7c74",
    ),
    "boucaud2016": Paper(
        "Boucaud, A. and Bocchio, M. and Abergel, A. and Orieux, F. and Dole, H. and Hadj-Youcef, M. A.",
        "Convolution kernels for multi-wavelength imaging", "A&A", 2016, "596", "A63",
        "10.1051/0004-6361/201629080",
    ),
    "fruchter2002": Paper(
        "Fruchter, A. S. and Hook, R. N.",
        "Drizzle: A Method for the Linear Reconstruction of Undersampled Images", "PASP", 2002, "114", "144",
        "10.1086/338393",
    ),
    "golub1973": Paper(
        "Golub, G. H. and Pereyra, V.",
        "The Differentiation of Pseudo-Inverses and Nonlinear Least Squares Problems Whose Variables Separate",
        "SIAM Journal on Numerical Analysis", 1973, "10", "413", "10.1137/0710036",
    ),
    "gonzalezdiaz2024": Paper(
        "González-Díaz, R. and Rosales-Ortega, F. F. and Galbany, L. and others",
        "BETIS: Bidimensional Exploration of the warm-Temperature Ionised gaS. I. Showcasing sample and first"
        " results",
        "A&A", 2024, "687", "A20", "10.1051/0004-6361/202348453",
    ),
    "diehl2006": Paper(
        "Diehl, S. and Statler, T. S.",
        "Adaptive binning of X-ray data with weighted Voronoi tessellations", "MNRAS", 2006, "368", "497",
        "10.1111/j.1365-2966.2006.10125.x",
    ),
    "cappellari2003": Paper(
        "Cappellari, M. and Copin, Y.",
        "Adaptive spatial binning of integral-field spectroscopic data using Voronoi tessellations", "MNRAS", 2003,
        "342", "345", "10.1046/j.1365-8711.2003.06541.x",
    ),
    "fitzpatrick1999": Paper(
        "Fitzpatrick, E. L.", "Correcting for the Effects of Interstellar Extinction", "PASP", 1999, "111", "63",
        "10.1086/316293",
    ),
    "cardelli1989": Paper(
        "Cardelli, J. A. and Clayton, G. C. and Mathis, J. S.",
        "The Relationship between Infrared, Optical, and Ultraviolet Extinction", "ApJ", 1989, "345", "245",
        "10.1086/167900",
    ),
    "odonnell1994": Paper(
        "O'Donnell, J. E.", "R_v-dependent Optical and Near-Ultraviolet Extinction", "ApJ", 1994, "422", "158",
        "10.1086/173713",
    ),
    "cappellari2017": Paper(
        "Cappellari, M.",
        "Improving the full spectrum fitting method: accurate convolution with Gauss-Hermite functions", "MNRAS",
        2017, "466", "798", "10.1093/mnras/stw3020",
    ),
    "cappellari2023": Paper(
        "Cappellari, M.",
        "Full spectrum fitting with photometry in PPXF: stellar population versus dynamical masses,"
        " non-parametric star formation history and metallicity for 3200 LEGA-C galaxies at redshift z ≈ 0.8",
        "MNRAS", 2023, "526", "3273", "10.1093/mnras/stad2597",
    ),
    "baldwin1981": Paper(
        "Baldwin, J. A. and Phillips, M. M. and Terlevich, R.",
        "Classification parameters for the emission-line spectra of extragalactic objects", "PASP", 1981, "93",
        "5", "10.1086/130766",
    ),
    "kewley2001": Paper(
        "Kewley, L. J. and Dopita, M. A. and Sutherland, R. S. and Heisler, C. A. and Trevena, J.",
        "Theoretical Modeling of Starburst Galaxies", "ApJ", 2001, "556", "121", "10.1086/321545",
    ),
    "kauffmann2003": Paper(
        "Kauffmann, G. and Heckman, T. M. and Tremonti, C. and others",
        "The host galaxies of active galactic nuclei", "MNRAS", 2003, "346", "1055",
        "10.1111/j.1365-2966.2003.07154.x",
    ),
    "lacerda2018": Paper(
        "Lacerda, E. A. D. and Cid Fernandes, R. and Couto, G. S. and others",
        "Diffuse ionized gas in galaxies across the Hubble sequence at the CALIFA resolution", "MNRAS", 2018,
        "474", "3727", "10.1093/mnras/stx3022",
    ),
    "vandokkum2001": Paper(
        "van Dokkum, P. G.", "Cosmic-Ray Rejection by Laplacian Edge Detection", "PASP", 2001, "113", "1420",
        "10.1086/323894",
    ),
    "padfield2012": Paper(
        "Padfield, D.", "Masked Object Registration in the Fourier Domain",
        "IEEE Transactions on Image Processing", 2012, "21", "2706", "10.1109/TIP.2011.2181402",
    ),
    "kennicutt2012": Paper(
        "Kennicutt, R. C. and Evans, N. J.", "Star Formation in the Milky Way and Nearby Galaxies", "ARA&A", 2012,
        "50", "531", "10.1146/annurev-astro-081811-125610",
    ),
    "chandar2025": Paper(
        "Chandar, R. and Barnes, A. T. and Thilker, D. A. and others",
        "The PHANGS-HST-Halpha Survey: Warm Ionized Gas Physics at High Angular Resolution in Nearby Galaxies with"
        " the Hubble Space Telescope",
        "AJ", 2025, "169", "150", "10.3847/1538-3881/adaa80",
    ),
    "nadvornik2021": Paper(
        "Nádvorník, J. and Škoda, P. and Tvrdík, P.",
        "HiSS-Cube: A scalable framework for Hierarchical Semi-Sparse Cubes preserving uncertainties",
        "Astronomy and Computing", 2021, "36", "100463", "10.1016/j.ascom.2021.100463",
    ),
    "gorski2005": Paper(
        "Górski, K. M. and Hivon, E. and Banday, A. J. and others",
        "HEALPix: A Framework for High-Resolution Discretization and Fast Analysis of Data Distributed on the"
        " Sphere",
        "ApJ", 2005, "622", "759", "10.1086/427976",
    ),
}  # fmt: skip
"""By their keys in BibTeX."""


def citations(used: Iterable[tuple[str, str]] = ()) -> tuple[Citation, ...]:
    """Return what a run is to cite.

    Parameters
    ----------
    used : iterable of (str, str)
        Keys of papers, and what the run owes to each; Skyloom itself and Astropy are always there.

    Returns
    -------
    tuple of Citation
    """
    text = f"{SOFTWARE['author']} {SOFTWARE['year']}, Skyloom, version {__version__}"
    fields = {**SOFTWARE, "author": f"{{{SOFTWARE['author']}}}", "title": f"{{{SOFTWARE['title']}}}"}
    own = Citation("this run", text, "", _bibtex("software", "skyloom", {**fields, "version": __version__}))
    papers = {**dict(used), "astropy2022": "units, tables, world coordinates, FITS"}
    return (own, *(PAPERS[key].cite(key, what) for key, what in papers.items()))
