"""Networks: those of the catalog and any of timm's or torchvision's, and the AWD-LSTM.

In: a name and a seed. Out: an initialised ``nn.Module`` on the CPU.
"""
