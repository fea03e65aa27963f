#!/bin/sh
# Takes out of an installation what neither `depth` nor a library on its way ever loads: `deploy/slim.sh SITE-PACKAGES`.
#
# A quarter of the image would be this. Nothing is taken that would be missed quietly: a part that is asked for all the same
# fails to import, by its name. Checked by `make deploy-check`: what is left converts a network, does a picture, and serves.
# Not shown: models that are downloaded, clips and buckets in the image.
set -eu
cd "$1"

# Tests of the libraries, headers, and programs for their developers.
rm -rf torch/test torch/include torch/bin/*[Tt]est* torch/bin/protoc* openvino/include openvino/cmake
find numpy fsspec -type d -name tests -prune -exec rm -rf {} +
find torch/testing/_internal -type f ! -name __init__.py ! -name logging_tensor.py ! -name common_dtype.py -delete
find . -name '*.pyi' -delete
rm -f torch/lib/*test*.so
# The compiler of torch.compile; networks are traced here, not compiled by it. sympy, mpmath and networkx serve it alone.
# setuptools builds its kernels.
rm -rf torch/_inductor torch/_dynamo sympy mpmath networkx setuptools _distutils_hack distutils-precedence.pth
# What names the functions inside torch for a debugger: 100 MB.
strip --strip-unneeded torch/lib/libtorch_cpu.so torch/lib/libtorch_python.so
# OpenVINO runs on the processor and reads what torch traced: no other device, no other source.
rm -rf openvino/frontend/onnx openvino/frontend/tensorflow openvino/frontend/paddle openvino/frontend/jax
cd openvino/libs
rm -f cache.json libopenvino_intel_gpu_plugin.so libopenvino_intel_npu_*.so libopenvino_auto*_plugin.so libopenvino_hetero_plugin.so
rm -f libopenvino_onnx_frontend.so* libopenvino_tensorflow_*.so* libopenvino_paddle_frontend.so* libopenvino_gguf_frontend.so* \
    libopenvino_jax_frontend.so*
cd ../..
# Of the 400 services that botocore knows, S3 and those that give it rights.
find botocore/data -mindepth 1 -maxdepth 1 -type d ! -name s3 ! -name 'sso*' ! -name sts ! -name signin -exec rm -rf {} +
