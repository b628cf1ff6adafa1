"""From text to a recommended vocabulary: measures, advice, table, figure and recipe."""
