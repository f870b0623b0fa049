"""Files and folders that notebooks, NAS systems and operating systems leave among a user's images."""

import fnmatch
import re

# Of any folder or file: case does not count, since Windows writes Thumbs.db and thumbs.db.
_ANYWHERE = (
    ".ipynb_checkpoints",
    "__pycache__",
    ".git",
    ".svn",
    ".idea",
    ".vscode",
    # macOS
    "._*",
    ".ds_store",
    "__macosx",
    ".appledouble",
    ".appledb",
    ".appledesktop",
    ".fseventsd",
    ".spotlight-v100",
    ".temporaryitems",
    ".documentrevisions-v100",
    "network trash folder",
    "icon\r",
    # Windows
    "thumbs.db",
    "thumbs.db:encryptable",
    "ehthumbs.db",
    "desktop.ini",
    "$recycle.bin",
    "system volume information",
    # NAS systems and network file systems
    "@eadir",
    "@tmp",
    "@recycle",
    "@sharebin",
    "#recycle",
    "#snapshot",
    "synofile_thumb_*",
    ".snapshot",
    ".snapshots",
    ".nfs*",
    ".smbdelete*",
    ".fuse_hidden*",
    # Linux desktops and disks, synchronisation
    "lost+found",
    ".trash*",
    ".directory",
    ".thumbnails",
    ".~lock.*",
    ".dropbox*",
    ".stfolder",
    ".stversions",
    ".syncthing.*",
)
# Of files alone, by how their names end: a class may be called "tmp.part".
_FILES = ("*~", "*.part", "*.partial", "*.crdownload", "*.download", "*.aria2", "*.tmp", "*.swp", "*.bak")


def _any_of(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(fnmatch.translate(p) for p in patterns), re.IGNORECASE)


_FOLDER_NAME, _FILE_NAME = _any_of(_ANYWHERE), _any_of(_ANYWHERE + _FILES)


def is_junk(name: str, *, folder: bool) -> bool:
    """Whether a folder or a file of this name, without its path, is left behind by a program and no one's image."""
    return (_FOLDER_NAME if folder else _FILE_NAME).match(name) is not None
