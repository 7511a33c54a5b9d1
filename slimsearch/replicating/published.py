"""What SlimLLaVA's paper prints in its Tables 1 to 4 and in the text about Figure 1."""

RATIOS = (0.3, 0.4, 0.5)
GROUPS = ("NAT", "SOC", "LAN", "TXT", "IMG", "NO", "G1-6", "G7-12")

# Accuracy on ScienceQA of LLaVA-SQA-7B: row -> average ratio, accuracy.
TABLE_1 = {
    "Uniform": (0.50, 80.45), "Auto w/o Gen": (0.49, 81.34), "SlimLLaVA": (0.50, 83.05),
}  # fmt: skip
TABLE_2 = {
    "No Evo": (0.50, 81.07), "Evo w/o UB": (0.51, 82.85), "SlimLLaVA": (0.50, 83.05),
}  # fmt: skip

# ScienceQA by group and on average: model -> (ratio, method) -> figures. LLaVA-v1.5-7B by SparseGPT
# at 0.4 is as printed, though its average lies below both of its grades.
TABLE_3 = {
    "LLaVA-SQA-7B": {
        (0.0, "dense"): (89.39, 96.06, 85.64, 88.71, 87.65, 88.50, 90.93, 87.80, 89.91),
        (0.3, "LLM-Pruner"): (39.34, 27.22, 47.55, 39.69, 34.56, 43.76, 38.22, 40.21, 38.93),
        (0.3, "SparseGPT"): (88.28, 95.16, 85.45, 87.39, 86.71, 88.01, 89.54, 88.00, 88.99),
        (0.3, "SlimLLaVA"): (89.39, 93.36, 86.45, 88.51, 86.47, 89.34, 89.98, 88.53, 89.46),
        (0.4, "LLM-Pruner"): (0.18, 0.11, 0.64, 0.20, 0.15, 0.49, 0.18, 0.46, 0.28),
        (0.4, "SparseGPT"): (80.73, 89.65, 79.82, 80.40, 80.17, 81.32, 83.99, 79.43, 82.36),
        (0.4, "SlimLLaVA"): (89.17, 91.34, 85.37, 88.27, 85.57, 88.57, 89.39, 87.54, 88.73),
        (0.5, "SparseGPT"): (80.28, 89.54, 73.45, 79.23, 78.98, 77.84, 82.56, 76.66, 80.45),
        (0.5, "SlimLLaVA"): (83.61, 90.44, 75.91, 82.80, 83.54, 79.51, 84.73, 80.03, 83.05),
    },
    "LLaVA-v1.5-7B": {
        (0.0, "dense"): (62.57, 69.07, 65.55, 62.81, 63.26, 63.90, 68.65, 57.61, 64.70),
        (0.3, "LLM-Pruner"): (21.67, 11.36, 12.73, 23.17, 21.52, 13.45, 16.30, 18.79, 17.19),
        (0.3, "SparseGPT"): (58.88, 68.05, 63.45, 59.24, 61.87, 61.39, 65.12, 56.36, 61.99),
        (0.3, "SlimLLaVA"): (64.03, 67.15, 69.36, 63.20, 62.96, 68.90, 68.98, 60.84, 66.07),
        (0.4, "LLM-Pruner"): (0.18, 0.11, 0.45, 0.20, 0.15, 0.35, 0.18, 0.33, 0.24),
        (0.4, "SparseGPT"): (56.97, 65.80, 60.55, 57.04, 59.44, 58.40, 63.44, 63.13, 59.75),
        (0.4, "SlimLLaVA"): (60.35, 67.27, 66.91, 60.26, 61.77, 64.53, 66.74, 57.68, 63.50),
        (0.5, "SparseGPT"): (53.51, 57.71, 56.82, 54.01, 54.64, 54.98, 56.86, 52.34, 55.25),
        (0.5, "SlimLLaVA"): (56.57, 56.13, 60.55, 56.79, 54.24, 58.54, 59.73, 53.53, 57.51),
    },
}

# LLaVA-v1.5-7B: benchmark -> (ratio, method) -> figure; the dense one is printed once.
TABLE_4 = {
    "vizwiz": {
        (0.0, "dense"): 50.05,
        (0.3, "LLM-Pruner"): 20.85, (0.4, "LLM-Pruner"): 7.30, (0.5, "LLM-Pruner"): 0.0,
        (0.3, "SparseGPT"): 46.43, (0.4, "SparseGPT"): 41.90, (0.5, "SparseGPT"): 38.61,
        (0.3, "SlimLLaVA"): 52.70, (0.4, "SlimLLaVA"): 52.19, (0.5, "SlimLLaVA"): 50.28,
    },
    "mmvet": {
        (0.0, "dense"): 35.40,
        (0.3, "LLM-Pruner"): 14.30, (0.4, "LLM-Pruner"): 0.10, (0.5, "LLM-Pruner"): 0.0,
        (0.3, "SparseGPT"): 21.20, (0.4, "SparseGPT"): 20.30, (0.5, "SparseGPT"): 17.90,
        (0.3, "SlimLLaVA"): 33.80, (0.4, "SlimLLaVA"): 33.00, (0.5, "SlimLLaVA"): 31.70,
    },
    "llava_bench": {
        (0.0, "dense"): 55.90,
        (0.3, "LLM-Pruner"): 37.70, (0.4, "LLM-Pruner"): 29.30, (0.5, "LLM-Pruner"): 22.70,
        (0.3, "SparseGPT"): 57.90, (0.4, "SparseGPT"): 52.50, (0.5, "SparseGPT"): 48.80,
        (0.3, "SlimLLaVA"): 58.40, (0.4, "SlimLLaVA"): 54.50, (0.5, "SlimLLaVA"): 53.00,
    },
}  # fmt: skip

# Speed of LLaVA-v1.5-7B in DeepSparse against dense, and ScienceQA beside it (LLaVA-SQA-7B).
FIGURE_1 = {0.0: (1.0, 89.91), 0.3: (1.47, 89.46), 0.5: (2.16, 83.05)}
