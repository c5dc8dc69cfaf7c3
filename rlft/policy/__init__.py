"""Flow policies: the contract, the denoising mathematics, and π0."""
