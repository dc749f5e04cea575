// Where a picture comes from: a file, a drop, the clipboard, the camera, a sample.

import {element} from './elements.js';

const SAMPLES = ['digits_detection/scene_4.jpg', 'digits_detection/scene_2.jpg', 'digits_classification/seven.png',
    'digits_classification/eight.png'];

// Calls `choose` with {blob, name, url, width, height}; width and height are of the upright picture, 0 where this browser cannot show it.
// tell: says why there is none.
export function offerPictures(choose, tell) {
    const find = (id) => document.getElementById(id);
    let latest = 0;
    const take = async (blob, name) => {
        const number = ++latest;
        const picture = await lookAt(blob, name || nameOf(blob));
        if (number === latest) { // a large picture may take longer than the one after it
            choose(picture);
        }
    };
    const takeFirst = (files) => files.length && take(files[0], files[0].name);
    find('file').addEventListener('change', (event) => {
        takeFirst(event.target.files);
        event.target.value = ''; // so that the same file may be chosen again
    });
    document.addEventListener('dragover', (event) => {
        event.preventDefault();
        document.body.classList.add('over');
    });
    document.addEventListener('dragleave', (event) => event.relatedTarget || document.body.classList.remove('over'));
    document.addEventListener('drop', (event) => {
        event.preventDefault();
        document.body.classList.remove('over');
        if (!takeFirst(event.dataTransfer.files)) {
            tell('What was dropped is no file. Save the picture first, or copy and paste it.');
        }
    });
    document.addEventListener('paste', (event) => takeFirst(event.clipboardData.files));
    offerSamples(find('samples'), take);
    offerCamera(find, take, tell);
}

async function lookAt(blob, name) {
    const url = URL.createObjectURL(blob);
    const image = new Image();
    image.src = url;
    try {
        await image.decode();
    } catch (error) {
        return {blob, name, url, width: 0, height: 0};
    }
    return {blob, name, url, width: image.naturalWidth, height: image.naturalHeight};
}

function nameOf(blob) {
    return `picture.${(blob.type.split('/')[1] || 'jpg').replace(/\W.*/, '')}`;
}

function offerSamples(place, take) {
    SAMPLES.forEach((path) => {
        const name = path.split('/')[1];
        const image = element('img', {src: `playground/samples/${path}`, alt: `Sample ${name}`});
        const button = element('button', {type: 'button', title: name}, image);
        button.addEventListener('click', async () => take(await (await fetch(image.src)).blob(), name));
        place.append(button);
    });
}

function offerCamera(find, take, tell) {
    const video = find('video');
    const close = () => {
        (video.srcObject ? video.srcObject.getTracks() : []).forEach((track) => track.stop());
        video.srcObject = null;
        find('camera').hidden = true;
    };
    find('open-camera').hidden = !(navigator.mediaDevices && navigator.mediaDevices.getUserMedia);
    find('open-camera').addEventListener('click', async () => {
        try {
            video.srcObject = await navigator.mediaDevices.getUserMedia({video: {facingMode: 'environment', width: {ideal: 1280}}});
            find('camera').hidden = false;
            await video.play();
            find('take').focus();
        } catch (error) {
            close();
            tell(`No camera: ${error.message}.`);
        }
    });
    find('close-camera').addEventListener('click', () => {
        close();
        find('open-camera').focus();
    });
    find('take').addEventListener('click', () => {
        const canvas = element('canvas', {width: video.videoWidth, height: video.videoHeight});
        canvas.getContext('2d').drawImage(video, 0, 0);
        canvas.toBlob((blob) => {
            close();
            find('open-camera').focus();
            take(blob, 'camera.jpg');
        }, 'image/jpeg', 0.95);
    });
}
