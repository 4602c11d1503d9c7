"""Where the authors of each dataset publish its files, and under which terms."""

from pyrovae.data.sources import Source

MNIST = Source(
    name="mnist",
    folders=("mnist", "MNIST/raw"),
    checksums={
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    address="https://ossci-datasets.s3.amazonaws.com/mnist",
    mirrors=("https://storage.googleapis.com/cvdf-datasets/mnist",),
    decompressed={
        "train-images-idx3-ubyte.gz": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte.gz": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte.gz": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte.gz": "27ae3e4e09519cfbb04c329615203637",
    },
)
STATIC_MNIST = Source(
    name="static-mnist",
    folders=("binarized_mnist",),
    checksums={
        "binarized_mnist_train.amat": "db28b1a6ae0fe70cbd3da91acf46e477",
        "binarized_mnist_valid.amat": "bf37822a04e94123630de6a7dfd9c9ef",
        "binarized_mnist_test.amat": "14e41ae11040adba6ab8cb291eda0dd8",
    },
    address="http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist",
    licence="none stated",
)
FASHION_MNIST = Source(
    name="fashion-mnist",
    folders=("fashion_mnist", "fashion-mnist", "FashionMNIST/raw"),
    checksums={
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
    address="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    mirrors=("https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",),
    decompressed={
        "train-images-idx3-ubyte.gz": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte.gz": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte.gz": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte.gz": "15d484375f8d13e6eb1aabb0c3f46965",
    },
    licence="MIT",
)
