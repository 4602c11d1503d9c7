"""The addresses, checksums and licences of the files that the authors of each dataset publish."""

from pyrovae.data.published_files.sources import Source

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
    packed={"binarized_mnist.npz": "sha256:50de2c8299a5a297789293ab2c30f6fc3cb8c359a15e5e88d5501aa18ebb8fa5"},
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
OMNIGLOT = Source(
    name="omniglot",
    folders=("omniglot", "OMNIGLOT"),
    checksums={"chardata.mat": "21ecaf34373511aa7691cf2e0802aa3d"},
    address="https://raw.githubusercontent.com/yburda/iwae/master/datasets/OMNIGLOT",
    licence="none stated",
)
# Lake publishes the images one by one in archives; these files hold the same pixels. The checksums were taken from copies
# that agree with the published SHA-256.
OMNIGLOT_ORIGINAL = Source(
    name="omniglot-28",
    folders=("omniglot_original", "omniglot-28"),
    checksums={
        "images_background.npz": "042c0a3e1688c4f4dc9d7213db63ee80",
        "images_evaluation.npz": "a6277b6770b9241c6906fa797456e652",
    },
    address="https://raw.githubusercontent.com/bitsandscraps/omniglot/master",
    licence="MIT",
)
# No checksum of this file and of the next was ever published; these belong to the copies that the tests were written for.
CALTECH101_SILHOUETTES = Source(
    name="caltech101-silhouettes",
    folders=("caltech101_silhouettes", "caltech101-silhouettes"),
    checksums={"caltech101_silhouettes_28_split1.mat": "4483e9c14b188fd09937f9ea6f9ea777"},
    address="https://people.cs.umass.edu/~marlin/data",
    licence="none stated",
)
FREYFACES = Source(
    name="freyfaces",
    folders=("freyfaces", "frey_faces"),
    checksums={"frey_rawface.mat": "5aeb024d42b8a6091f30e5eb18c8a48d"},
    address="https://cs.nyu.edu/~roweis/data",
    licence="none stated",
)
SMALL_NORB = Source(
    name="small-norb",
    folders=("small_norb", "small-norb", "smallnorb"),
    checksums={
        "smallnorb-5x46789x9x18x6x2x96x96-training-dat.mat.gz": "66054832f9accfe74a0f4c36a75bc0a2",
        "smallnorb-5x46789x9x18x6x2x96x96-training-cat.mat.gz": "23c8b86101fbf0904a000b43d3ed2fd9",
        "smallnorb-5x01235x9x18x6x2x96x96-testing-dat.mat.gz": "e4ad715691ed5a3a5f138751a4ceb071",
        "smallnorb-5x01235x9x18x6x2x96x96-testing-cat.mat.gz": "5aa791cd7e6016cf957ce9bdb93b8603",
    },
    address="https://cs.nyu.edu/~ylclab/data/norb-v1.0-small",
    licence="none stated",
)
