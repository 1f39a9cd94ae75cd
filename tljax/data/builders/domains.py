"""Sets of several domains over the same classes, distributed as folders `domain/class/image`."""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import ClassVar

import tensorflow_datasets as tfds

from tljax.data import folder
from tljax.data.builders import files
from tljax.data.splits import stratified


class DomainFolders(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """One configuration a domain, with the splits of `folder:`: 80/20 of every class.

    Images lie in `.../DOMAIN/CLASS/...` or `.../DOMAIN/images/CLASS/...`, unpacked or in archives;
    'Real World' is the folder of the configuration real_world. A new set is a subclass with what
    is declared here and its BUILDER_CONFIGS.
    """

    VERSION = tfds.core.Version('1.0.0')
    CLASSES: ClassVar[int]
    REMOTE: ClassVar[files.Remote | None] = None
    HOMEPAGE: ClassVar[str]
    CITATION: ClassVar[str]

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    'image': tfds.features.Image(shape=(None, None, 3)),
                    'label': tfds.features.ClassLabel(num_classes=self.CLASSES),
                }
            ),
            supervised_keys=('image', 'label'),
            homepage=self.HOMEPAGE,
            citation=self.CITATION,
        )

    def _split_generators(self, dl_manager):
        root = files.manual_dir(dl_manager)
        if root is None:
            if self.REMOTE is None:
                raise ValueError('it is not downloaded automatically')
            root = files.fetch(dl_manager, self.REMOTE)
        tree = self._tree(root)
        self.info.features['label'].names = list(tree)
        paths, labels = folder.table(tree, tuple(tree))
        parts = zip(('train', 'test'), stratified(labels, 0.2), strict=True)
        return {
            split: self._generate_examples(root, {paths[row]: int(labels[row]) for row in rows})
            for split, rows in parts
        }

    def _generate_examples(self, root: Path, wanted: Mapping[str, int]) -> Iterator:
        for path, read in files.members(root):
            if path in wanted:
                example = {'image': files.image(path, read), 'label': wanted[path]}
                yield path, example

    def _tree(self, root: Path) -> dict[str, list[str]]:
        """The image files of each class of the domain, both in the order of their names."""
        name = self.builder_config.name
        tree: dict[str, list[str]] = {}
        tops = set()
        for path, _ in files.members(root):
            found = self._place(path) if folder.is_image(PurePosixPath(path).name) else None
            if found:
                tops.add(found[0])
                tree.setdefault(found[1], []).append(path)
        if len(tops) > 1:
            raise ValueError(
                f'{root}: has the domain {name!r} twice, in {" and in ".join(sorted(tops))}'
            )
        if len(tree) != self.CLASSES:
            seen = f': {", ".join(sorted(tree)[:8])}' if tree else ''
            raise ValueError(
                f'{root}: expected {self.CLASSES} class folders of images in a folder of the '
                f'domain {name!r}, found {len(tree)}{seen}'
            )
        return {label: sorted(tree[label]) for label in sorted(tree)}

    def _place(self, path: str) -> tuple[str, str] | None:
        """The domain's folder and the class of a file, if it is of this domain."""
        above = PurePosixPath(path).parts[:-1]
        for at, name in enumerate(above):
            if name.lower().replace(' ', '_') == self.builder_config.name:
                below = [name for name in above[at + 1 :] if name != 'images']
                return ('/'.join(above[: at + 1]), below[0]) if below else None
        return None


def _configs(*domains: str) -> list[tfds.core.BuilderConfig]:
    return [tfds.core.BuilderConfig(name=domain) for domain in domains]


class Pacs(DomainFolders):
    """PACS: 7 classes as photos, art paintings, cartoons and sketches, 9,991 images."""

    VERSION = tfds.core.Version('1.0.0')
    CLASSES = 7
    BUILDER_CONFIGS = _configs('photo', 'art_painting', 'cartoon', 'sketch')
    HOMEPAGE = 'https://domaingeneralization.github.io'
    CITATION = 'D. Li et al., Deeper, broader and artier domain generalization, ICCV 2017'
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f'the folders photo, art_painting, cartoon and sketch of {HOMEPAGE}, each with a folder of '
        'images a class, unpacked or as the zip file'
    )


class Office31(DomainFolders):
    """Office-31: 31 classes of office things, from a shop's pages and from two cameras."""

    VERSION = tfds.core.Version('1.0.0')
    CLASSES = 31
    BUILDER_CONFIGS = _configs('amazon', 'dslr', 'webcam')
    REMOTE = files.Remote(
        'https://cornell.box.com/shared/static/3v2ftdkdhpz1lbbr4uhu0135w7m79p7q',
        'office31.tar.gz',
        '89818e596f3cdda1d56da0f077435faa',
    )
    HOMEPAGE = 'https://faculty.cc.gatech.edu/~judy/domainadapt/'
    CITATION = 'K. Saenko et al., Adapting visual category models to new domains, ECCV 2010'
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        'the folders amazon, dslr and webcam with images/CLASS/*.jpg, unpacked or as '
        f'office31.tar.gz, which is downloaded from {REMOTE.url} where no manual_dir is given'
    )


class OfficeHome(DomainFolders):
    """Office-Home: 65 classes of everyday things in four domains, 15,588 images."""

    VERSION = tfds.core.Version('1.0.0')
    CLASSES = 65
    BUILDER_CONFIGS = _configs('art', 'clipart', 'product', 'real_world')
    HOMEPAGE = 'https://www.hemanthdv.org/officeHomeDataset.html'
    CITATION = 'H. Venkateswara et al., Deep hashing network for domain adaptation, CVPR 2017'
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f'the folders Art, Clipart, Product and "Real World" of {HOMEPAGE}, each with a folder of '
        'images a class, unpacked or as the zip file'
    )
