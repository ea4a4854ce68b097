"""The rules of twbench.compare.advice, by subject. Each looks at the content of compare.json.

They are pure, and none knows of another.
"""
