# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Source me: what takes minutes says what it is at, and for how long it has been.

# elapsed SECONDS: as 47 s or 3 min 07 s.
elapsed() {
    if (($1 < 60)); then printf '%d s' "$1"; else printf '%d min %02d s' $(($1 / 60)) $(($1 % 60)); fi
}

# pip_progress [EVERY]: reads what pip says and tells how far it is: on a terminal in one line that changes each second,
# elsewhere in a line of its own each EVERY seconds (20).
pip_progress() {
    local line='' rest every=${1:-20} begun=$SECONDS said=$SECONDS packages=0 what='pip is starting'
    while true; do
        if IFS= read -r -t 1 line; then
            case $line in
                'Collecting '*)
                    packages=$((packages + 1))
                    rest=${line#Collecting }
                    what="finding out what is needed: package $packages, ${rest%% *}"
                    ;;
                *'Downloading '*)
                    rest=${line##*Downloading }
                    rest=${rest##*/}
                    what="downloading ${rest%%-*} ${rest#* }"
                    ;;
                *'Building wheel for '* | *'Building editable for '*)
                    rest=${line#* for }
                    what="building ${rest%% *}"
                    ;;
                'Installing collected packages: '*)
                    rest=${line//[^,]/}
                    what="unpacking $((${#rest} + 1)) packages, which takes as long as the disk needs for them"
                    ;;
                'Successfully '*) what='done' ;;
            esac
        elif (($? <= 128)); then # more than 128: nothing was said for a second
            break
        fi
        if [[ -t 1 ]]; then
            printf '\r\033[K  %s: %s' "$(elapsed $((SECONDS - begun)))" "${what:0:90}"
        elif ((SECONDS - said >= every)); then
            said=$SECONDS
            printf '  %s: %s\n' "$(elapsed $((SECONDS - begun)))" "$what"
        fi
    done
    if [[ -t 1 ]]; then printf '\r\033[K'; fi
}
