"""What every COCO annotation file has: its images and its categories."""

from pydantic import BaseModel


class CocoImage(BaseModel):
    id: int
    file_name: str


class CocoCategory(BaseModel):
    id: int
    name: str
