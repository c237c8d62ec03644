"""Colours that mean the same in every figure and in the terminal."""

INK, MUTED, HAIRLINE = "#1F2937", "#6B7280", "#D1D5DB"
SPAN_COLOURS = {1: "#46648C", 2: "#D99A2B", 3: "#8E4585"}  # S_1, S_2, S_3
MODEL_COLOURS = {"dense": "#46648C", "pruned": "#E4572E", "tuned": "#1B998B"}
# The same for text: at least 4.5:1 on white.
MODEL_INKS = {"dense": "#46648C", "pruned": "#C93F19", "tuned": "#157F74"}
LINE_COLOURS = (  # of lines that have no fixed meaning
    *("#46648C", "#E4572E", "#1B998B", "#D99A2B"),
    *("#8E4585", "#5DA9E9", "#6B7280", "#3A2E39"),
)
SEQUENTIAL = ("#F4F6F9", "#C3D0E0", "#7F9CBF", "#46648C", "#1B2A44")  # pale is low; grey prints too
