"""How a model is stored in MLflow. The file names are a storage format: logged models name them.

Nothing is imported here: a worker that scores text loads `exported_text` through this package, without torch.
"""
