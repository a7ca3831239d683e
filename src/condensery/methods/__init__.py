"""Condensation methods: one paper, one file."""

from condensery.methods.bptt import BPTT
from condensery.methods.cig import CIG
from condensery.methods.datm import DATM
from condensery.methods.dc import DC
from condensery.methods.dconrec import DConRec
from condensery.methods.dm import DM
from condensery.methods.doscond import DosCond
from condensery.methods.doscond_graphs import DosCondGraphs
from condensery.methods.doscond_rec import DosCondRec
from condensery.methods.dsa import DSA
from condensery.methods.frepo import FRePo
from condensery.methods.ftd import FTD
from condensery.methods.gcdm import GCDM
from condensery.methods.gcond import GCond
from condensery.methods.geom import GEOM
from condensery.methods.gntk import GraphTangentScore
from condensery.methods.kip import KIP, InfiniteNtk, Kernel, RandomNngp, RandomNtk
from condensery.methods.linearised import Descent, Dual, Solver
from condensery.methods.mct import MCT
from condensery.methods.mtt import MTT
from condensery.methods.rcig import RCIG
from condensery.methods.regression import OuterLoss, Platt, Squared
from condensery.methods.rfad import RFAD
from condensery.methods.satm import SATM, SATMDA, Asam, Ascent, Gsam, Sam, Vasso
from condensery.methods.sfgc import SFGC
from condensery.methods.tesla import TESLA
from condensery.methods.vig import VIG

__all__ = [
    "BPTT",
    "CIG",
    "DATM",
    "DC",
    "DM",
    "DSA",
    "FTD",
    "GCDM",
    "GEOM",
    "KIP",
    "MCT",
    "MTT",
    "RCIG",
    "RFAD",
    "SATM",
    "SATMDA",
    "SFGC",
    "TESLA",
    "VIG",
    "Asam",
    "Ascent",
    "DConRec",
    "Descent",
    "DosCond",
    "DosCondGraphs",
    "DosCondRec",
    "Dual",
    "FRePo",
    "GCond",
    "GraphTangentScore",
    "Gsam",
    "InfiniteNtk",
    "Kernel",
    "OuterLoss",
    "Platt",
    "RandomNngp",
    "RandomNtk",
    "Sam",
    "Solver",
    "Squared",
    "Vasso",
]
