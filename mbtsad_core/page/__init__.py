"""The page: Gradio over the core. One file a step; what a step shows is made by the views, what it runs by the core and
the jobs."""
