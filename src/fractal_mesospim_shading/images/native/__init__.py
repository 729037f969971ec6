"""Acquisitions as the microscope writes them: stacks, put together to mosaics."""
