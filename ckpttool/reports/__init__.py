"""Model → Report: what there is to say, as titled columns and rows. Knows no colors and no terminals."""

from ckpttool.reports.checkpoints import SORTS, export_plan, object_tree, state, variable_tree, variables
from ckpttool.reports.graphs import (
    collection_members,
    collections,
    devices,
    endpoints,
    functions,
    graph_variables,
    op_types,
    ops,
    overview,
    signatures,
)
from ckpttool.reports.report import Column, Report

__all__ = [
    "SORTS",
    "Column",
    "Report",
    "collection_members",
    "collections",
    "devices",
    "endpoints",
    "export_plan",
    "functions",
    "graph_variables",
    "object_tree",
    "op_types",
    "ops",
    "overview",
    "signatures",
    "state",
    "variable_tree",
    "variables",
]
