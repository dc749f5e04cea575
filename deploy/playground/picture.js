// Where a picture comes from: a file, a drop, the clipboard, the camera, a sample.

import {element} from './elements.js';

const SAMPLES = ['digits_detection/scene_4.jpg', 'digits_detection/scene_2.jpg', 'digits_classification/seven.png',
    'digits_classification/eight.png'];

// Calls `choose` with {blob, name, url, width, height}; width and height are of the upright picture, 0 where this browser cannot show it.
export function offerPictures(choose) {
    const find = (id) => document.getElementById(id);
    const take = async (blob, name) => blob && choose(await lookAt(blob, name || nameOf(blob)));
    find('file').addEventListener('change', (event) => {
        const [file] = event.target.files;
        take(file, file && file.name);
        event.target.value = ''; // so that the same file may be chosen again
    });
    find('drop').addEventListener('keydown', (event) => {
        if (event.key === 'Enter' || event.key === ' ') {
            event.preventDefault();
            find('file').click();
        }
    });
    document.addEventListener('dragover', (event) => {
        event.preventDefault();
        find('drop').classList.add('over');
    });
    document.addEventListener('dragleave', () => find('drop').classList.remove('over'));
    document.addEventListener('drop', (event) => {
        event.preventDefault();
        find('drop').classList.remove('over');
        const [file] = event.dataTransfer.files;
        take(file, file && file.name);
    });
    document.addEventListener('paste', (event) => {
        const [file] = event.clipboardData.files;
        take(file, file && file.name);
    });
    offerSamples(find('samples'), take);
    offerCamera(find, take);
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
        const image = element('img', {src: `playground/samples/${path}`, alt: name});
        const button = element('button', {type: 'button', title: name, 'data-sample': name}, image);
        button.addEventListener('click', async () => take(await (await fetch(image.src)).blob(), name));
        place.append(button);
    });
}

function offerCamera(find, take) {
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
        } catch (error) {
            find('picture-name').textContent = `no camera: ${error.message}`;
            close();
        }
    });
    find('close-camera').addEventListener('click', close);
    find('take').addEventListener('click', () => {
        const canvas = element('canvas', {width: video.videoWidth, height: video.videoHeight});
        canvas.getContext('2d').drawImage(video, 0, 0);
        canvas.toBlob((blob) => {
            close();
            take(blob, 'camera.jpg');
        }, 'image/jpeg', 0.95);
    });
}
