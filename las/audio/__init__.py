"""An audio file -> samples."""

# Searched for in folders: what libsndfile reads, and what ffmpeg reads if it is installed.
_SUFFIXES = """
.3g2 .3gp .aac .ac3 .aif .aifc .aiff .amr .ape .asf .au .avi .caf .dts .eac3 .f4v .flac .flv .gsm
.iff .m2ts .m4a .m4b .m4r .m4v .mka .mkv .mov .mp2 .mp3 .mp4 .mpc .mpeg .mpg .mpga .mts .oga .ogg
.ogv .opus .qt .ra .rf64 .rm .shn .snd .sph .spx .svx .tta .vob .voc .w64 .wav .wave .weba .webm
.wma .wmv .wv
"""
AUDIO_SUFFIXES = frozenset(_SUFFIXES.split())
