"""What makes the package work beside the versions of torch and OpenMMLab that people have."""
