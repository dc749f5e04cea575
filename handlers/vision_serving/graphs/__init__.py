"""What an artifact computes, as torch modules: uint8 pixels (N, H, W, 3) in, named outputs out.

The eager backend runs these modules, every exporter exports them, so no backend can normalise or decode differently.

    construction.py                                which graph a network gets
    sources.py                                     the network, rebuilt from what an archive says; onnx_network.py
    torchscript_files.py, python_files.py          programs that may only compute; files and packages of Python
    inputs.py                                      what some networks take beside the images
    heads.py, shapes.py                            changed last layers; channels that were pruned away
    fake_quantization.py                           layers that round as int8 does
    fixed_batches.py                               one number of images at a time
    pixels.py                                      the first layers: normalisation
    one_stage.py, two_stage.py, instance_heads.py  torchvision's detectors, with anchors.py
    outputs.py, layouts.py                         what a network gives, as a recipe says it; what would fit
    output_decoder.py, detections.py               how that becomes the named outputs
    precisions.py                                  the same graph in 16 bits
"""
