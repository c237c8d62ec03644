"""Colours that mean the same in every figure and in the terminal."""

INK, MUTED, HAIRLINE = "#1F2937", "#6B7280", "#D1D5DB"
SPAN_COLOURS = {1: "#46648C", 2: "#D99A2B", 3: "#8E4585"}  # S_1, S_2, S_3
MODEL_COLOURS = {"dense": "#46648C", "pruned": "#E4572E", "tuned": "#1B998B"}
