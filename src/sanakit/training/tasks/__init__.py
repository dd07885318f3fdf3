"""What is trained: tasks, their networks and batches; see `task.Task`.

transformer, autoencoder     the tasks            joint_text     a transformer with its text encoder
teacher                      for SANA-Sprint      dense_time, qk_norm     what it changes in the base model
training_set                 pictures of a run    latents, latent_cache     batches of a transformer
base_model                   what a run starts from            network    of a transformer, with its first weights
phases                       of an autoencoder
"""

from sanakit.training.tasks.training_set import held_items, open_training_set

__all__ = ["held_items", "open_training_set"]
