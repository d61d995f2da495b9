"""Result files -> tables, plots, one self-contained HTML page. Reads files only; it never trains."""

from ddcnn.report.draw import draw_decomposition
from ddcnn.report.experiment import experiment_remarks, experiment_tables, write_experiment_report
from ddcnn.report.html import write_report
from ddcnn.report.tables import comparison_table, rich_table

__all__ = [
    "comparison_table",
    "draw_decomposition",
    "experiment_remarks",
    "experiment_tables",
    "rich_table",
    "write_experiment_report",
    "write_report",
]
