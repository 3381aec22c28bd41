"""A small result file in the layout of STARLIGHT v04, with made-up numbers."""

from __future__ import annotations

import numpy as np

HEADER = """\
###################################################################
## OUTPUT of StarlightChains_v04.for    [Cid@UFSC - 01/Apr/2007] ##
###################################################################

## Some input info
bin_00003.txt                            [arq_obs]
base.list                                [arq_base]
lines.masks                              [arq_masks]
StCv04.C11.config                        [arq_config]
{n_base:5d}                                    [N_base]
CCM                                      [red_law_option]

## (Re)Sampling Parameters
 4000.00                                 [l_ini (A)]
 4000.00                                 [l_fin (A)]
    1.00                                 [dl    (A)]     (OBS: dl_cushion =    50.00 A)

## Normalization info
 4020.00                                 [l_norm (A) - for base]
{fobs_norm}                             [fobs_norm (in input units)]

## S/N
  12.500                                 [S/N in S/N window]
  14.000                                 [S/N in norm. window]
  1.0000                                 [fscale_chi2]
  2411                                   [NOl_eff]
     3    NSIGMA                         [Ntot_cliped & clip_method]

## Synthesis Results - Best model ##

{chi2}                             [chi2/Nl_eff]
     4.12000                             [adev (%)]

    98.50000                             [sum-of-x (%)]
 1.50000E-17                             [Flux_tot (units of input spectrum!)]
 2.00000E+04                             [Mini_tot (???)]
 1.00000E+04                             [Mcor_tot (???)]

  -35.50                                 [v0_min  (km/s)]
 120.25                                  [vd_min  (km/s)]
 0.4000                                  [AV_min  (mag)]
 0.0000                                  [YAV_min (mag)]

"""
HEADER += (
    "# j     x_j(%)      Mini_j(%)     Mcor_j(%)     age_j(yr)     Z_j      (L/M)_j    YAV?  Mstars   component_j"
    "        a/Fe...       SSP_chi2r SSP_adev(%)   SSP_AV   SSP_x(%)\n"
)
ROW = (
    "{j:3d}{x:12.4f}{mini:15.4E}{mcor:14.4E}{age:16.6E}{z:9.5f}{lm:11.3E}{yav:5d}{stars:9.4f}   {code:<20s}"
    "{alpha:8.4f}{chi2:15.4E}{adev:11.4f}{av:9.4f}{light:11.4f}\n"
)
TAIL = """

## Synthesis Results - Average & Chains ##

# j      x_j: min, <> & last-chain-values for 1 ...  2 chains
  1     60.0000     61.0000     62.0000

 -36.00                                  [v0_min (km/s) before EX0s...]
 121.00                                  [vd_min (km/s) before EX0s...]


## Synthetic spectrum (Best Model) ##l_obs f_obs f_syn wei
{n:5d}    [Nl_obs]
"""


def output_text(
    n_base: int = 2, n: int = 40, *, chi2: str = " 1.25000E+00", fobs_norm: str = "2.000000E-18"
) -> str:
    """Return a complete result: f_obs = 1 + 0.01 i, f_syn = 1, weights 5, with one masked, clipped and flagged."""
    text = HEADER.format(n_base=n_base, chi2=chi2, fobs_norm=fobs_norm)
    for j in range(1, n_base + 1):
        text += ROW.format(
            j=j, x=100.0 / n_base, mini=10.0, mcor=20.0, age=1e6 * 10.0**j, z=0.02, lm=1e-3, yav=0, stars=0.8,
            code=f"age{j:03d}_m62", alpha=0.0, chi2=1.5, adev=5.0, av=0.3, light=99.0,
        )  # fmt: skip
    text += TAIL.format(n=n)
    weight = np.full(n, 5.0)
    weight[1:4] = 0.0, -1.0, -2.0
    for i in range(n):
        text += f"{4000 + i:8.2f}{1 + 0.01 * i:11.5f}{1:10.5f}{weight[i]:9.3f}\n"
    return text
